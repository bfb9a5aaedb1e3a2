"""FastAPI as its documentation shows it, with ONNX Runtime in process; no thread pool, which would cost more."""

import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from work import Work


class Content(BaseModel):
    """What is to be moderated."""

    type: str
    text: str


class Request(BaseModel):
    """A request in the shape of POST /v1/moderate."""

    content: Content
    context: dict[str, Any] = {}


class Answer(BaseModel):
    """What a peer says."""

    decision: str
    score: float
    categories: list[str]


work = Work(Path(sys.argv[2]))
app = FastAPI()


@app.post("/v1/moderate")
async def moderate(request: Request) -> Answer:
    """Judge one text."""
    (found,) = work.judge([request.model_dump()])
    return Answer(**found)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
