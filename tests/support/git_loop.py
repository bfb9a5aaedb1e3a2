"""A Git repository as GitOps has it: an author pushes to it, and something pulls and applies."""

import subprocess
from pathlib import Path


class GitLoop:
    """An empty repository, and the two folders that were cloned from it."""

    def __init__(self, folder: Path) -> None:
        self.author, self.applier = folder / "author", folder / "applier"
        (folder / "origin").mkdir()
        _git(folder / "origin", "init", "-q", "--bare")
        _git(folder, "clone", "-q", "origin", "author")
        _git(folder, "clone", "-q", "origin", "applier")

    def push(self, words: str) -> None:
        """Commit all that the author's folder has."""
        _git(self.author, "add", ".")
        _git(self.author, "commit", "-qm", words)
        self._push()

    def revert(self) -> None:
        """Take the author's last commit back."""
        _git(self.author, "revert", "--no-edit", "HEAD")
        self._push()

    def pull(self) -> Path:
        """Bring the applier's folder up to date, and return it."""
        _git(self.applier, "pull", "-q", "origin", "main")
        return self.applier

    def _push(self) -> None:
        _git(self.author, "push", "-q", "origin", "HEAD:main")


def _git(folder: Path, *arguments: str) -> None:
    """Run git as somebody with a name."""
    who = ("-c", "user.name=author", "-c", "user.email=author@example.com", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
