"""Describes every message in and out as an AsyncAPI 3 document: docs/asyncapi.yaml."""
