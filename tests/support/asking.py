"""What tests ask of whatever answers applications, in a process or not."""

from typing import Any

import httpx


class Asking:
    """Questions over `client`."""

    client: httpx.Client

    def moderate(self, text: str, **context: Any) -> httpx.Response:
        """Ask for a decision on a text."""
        return self.client.post("/v1/moderate", json={"content": {"type": "text", "text": text}, "context": context})

    def decide(self, text: str, **context: Any) -> dict[str, Any]:
        """Return the decision on a text."""
        response = self.moderate(text, **context)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def get(self, path: str) -> dict[str, Any]:
        """Return what a route says, whatever its status."""
        return dict(self.client.get(path).json())

    def policy(self, name: str = "community") -> dict[str, Any]:
        """Return what is in force for a policy."""
        return dict(self.get(f"/v1/policies/{name}")["summary"])
