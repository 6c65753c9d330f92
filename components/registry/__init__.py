"""The model registry: versions, the aliases challenger and champion, promotion under a lock, rollback."""
