"""A vision-language model as a judge: it answers the yes/no questions of a rubric about a video.

The score of a question is the probability of the right answer, from the model's distribution of the first token of its
answer: p(right) / (p(yes) + p(no)). Nothing is generated, so no text of the model is read.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import OptionError

PACKAGED = Path(__file__).with_name("rubric.txt")
FRAMES = 8  # of a video that the model sees, evenly spaced
LEAST_MASS = 0.05  # p(yes) + p(no) below which the model did not answer
_WORDS = {"yes": ("yes", "Yes", "YES", " yes", " Yes"), "no": ("no", "No", "NO", " no", " No")}
_INSTRUCTION = "These are frames of a short video, in order. {question} Answer with one word, yes or no."
_LARGEST = 1 << 16  # bytes of a rubric


@dataclass(frozen=True)
class Question:
    """A question of a rubric.

    Attributes:
        text: with the placeholders $subject and $sentence.
        expected: answer of a good video, "yes" or "no".
    """

    text: str
    expected: str

    def about(self, subject: str, sentence: str) -> str:
        """The question about one video."""
        return string.Template(self.text).substitute(subject=subject, sentence=sentence)


@dataclass(frozen=True)
class Rubric:
    """Questions with the answers of a good video.

    Attributes:
        questions: in the order of the file.
    """

    questions: tuple[Question, ...]

    @classmethod
    def load(cls, path: str | Path = PACKAGED) -> Rubric:
        """Read a text file: per line the right answer, a colon and the question; lines that begin with # are comments.

        Raises:
            OptionError: the file cannot be read, or a line is no question.
        """
        try:
            data = Path(path).read_bytes()[: _LARGEST + 1]
            lines = data.decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"rubric {path}: expected a text file with questions ({error})") from None
        if len(data) > _LARGEST:
            raise OptionError(f"rubric {path}: larger than {_LARGEST >> 10} KiB")
        questions = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            answer, colon, text = (part.strip() for part in line.partition(":"))
            question = Question(text, answer.lower())
            if not colon or question.expected not in _WORDS or not text:
                raise OptionError(
                    f"rubric {path}, line {number}: expected 'yes: QUESTION' or 'no: QUESTION', got {line[:80]!r}"
                )
            try:
                question.about("", "")
            except (KeyError, ValueError) as error:
                raise OptionError(
                    f"rubric {path}, line {number}: unknown placeholder {error}; use $subject, $sentence, and $$ for "
                    f"a dollar sign"
                ) from None
            questions.append(question)
        if not questions:
            raise OptionError(f"rubric {path}: the file has no questions")
        return cls(tuple(questions))

    @property
    def digest(self) -> str:
        """SHA-256 of the questions and answers."""
        text = "\n".join(f"{each.expected}: {each.text}" for each in self.questions)
        return hashlib.sha256(f"{_INSTRUCTION}\n{text}".encode()).hexdigest()


class QuestionJudge:
    """A vision-language model that answers the questions of a rubric.

    Args:
        name: any model that transformers' `AutoModelForImageTextToText` loads: its name on the hub, or a folder. Remote
            code is never run.
        rubric: the questions.
        gpu: whether to run on a GPU.

    Raises:
        OptionError: transformers is not installed, or the model does not exist or cannot be loaded.
    """

    def __init__(self, name: str, rubric: Rubric, gpu: bool = False) -> None:
        from zoo.hub_access import check_pretrained

        try:
            import torch  # noqa: F401
            import torchvision  # noqa: F401 - the processors of transformers need it
            import transformers  # noqa: F401

            from factory.dataset.captioning import Captioner
        except ImportError as error:
            raise OptionError(
                f"vision-language model {name}: needs transformers and torchvision ({error}): "
                f"pip install 'menagerie4d[caption]'"
            ) from None
        check_pretrained(name, "vision-language model")
        try:
            self._model = Captioner(name, gpu=gpu)
        except (ImportError, OSError, ValueError, KeyError, AttributeError) as error:
            text = " ".join(str(error).split())[:300]
            raise OptionError(f"vision-language model {name}: cannot be loaded: {text}") from None
        self.name, self.rubric = name, rubric
        self._tokens = answer_tokens(self._model.processor.tokenizer)

    def __call__(
        self, frames: np.ndarray, fps: float, subject: str, sentence: str
    ) -> dict[str, float | None]:
        """Ask all questions about one video.

        Args:
            frames: uint8 [T, H, W, 3].
            fps: frames per second.
            subject: what the object is. sentence: what it is to do.

        Returns:
            "answers", the smallest score of the questions, and "answer: QUESTION" → score, 0..1. None where the model
            answered neither yes nor no.
        """
        import torch

        picked = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int))
        video, rate = frames[picked], fps * len(picked) / len(frames)
        scores: dict[str, float | None] = {}
        for question in self.rubric.questions:
            text = question.about(subject, sentence)
            inputs = self._model.inputs([video], rate, _INSTRUCTION.format(question=text))
            with torch.inference_mode():
                logits = self._model.model(**inputs).logits[0, -1].float()
            chances = torch.softmax(logits, -1).cpu().numpy()
            scores[f"answer: {text}"] = answer_score(chances, self._tokens, question.expected)
        measured = [score for score in scores.values() if score is not None]
        return {"answers": min(measured) if measured else None, **scores}


def answer_tokens(tokenizer: Any) -> dict[str, list[int]]:
    """The first tokens of the spellings of "yes" and of "no"; tokens that both have are left out.

    Raises:
        OptionError: the tokenizer does not tell the two apart.
    """
    first = {
        answer: {tokens[0] for word in words if (tokens := tokenizer.encode(word, add_special_tokens=False))}
        for answer, words in _WORDS.items()
    }
    both = first["yes"] & first["no"]
    tokens = {answer: sorted(each - both) for answer, each in first.items()}
    if not all(tokens.values()):
        raise OptionError("vision-language model: its tokenizer has the same first token for yes and no")
    return tokens


def answer_score(chances: np.ndarray, tokens: Mapping[str, Iterable[int]], expected: str) -> float | None:
    """p(expected) / (p(yes) + p(no)); None if their sum is below `LEAST_MASS`.

    Args:
        chances: of the next token, float [vocabulary].
        tokens: "yes" and "no" → token ids.
    """
    mass = {answer: float(chances[list(ids)].sum()) for answer, ids in tokens.items()}
    total = sum(mass.values())
    return mass[expected] / total if total >= LEAST_MASS else None
