"""Alembic's entry: run the migrations on the connection that `migrate` opened."""

from alembic import context

from baleen_sidecar.adapters.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
