"""The tables of the outbox."""

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]
    """See Django."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="OutboxCommand",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("body", models.BinaryField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="SenderLock",
            fields=[("id", models.PositiveSmallIntegerField(primary_key=True, serialize=False))],
        ),
    )
