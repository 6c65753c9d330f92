"""The model registry: versions, the aliases challenger and champion, promotion under a lock, rollback."""

from components.registry.store import Decision, Registry, RegistrySettings

__all__ = ["Decision", "Registry", "RegistrySettings"]
