"""The kinds of effects of release 0.1.0: the tests of the rules judge these. A later kind has tests of its own."""

from worker.kinds import EffectKind

KINDS_OF_0_1_0 = (
    EffectKind.SET_CREDIT_STATUS,
    EffectKind.REMOVE_CREDIT_STATUS,
    EffectKind.CASCADE_DECLINE,
    EffectKind.SEND_STATUS_EMAIL,
    EffectKind.DELETE_STUDENT_ATTEMPT,
)
