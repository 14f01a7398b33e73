"""The user's function: how it is found, and what is said where it is not."""

from pathlib import Path

import pytest

from midwatch_services.evals import calling
from midwatch_services.evals.calling import BadTarget

CODE = """
async def answer(run, turn): ...
def whole(agent, text): ...
def plain(text, *, loud=False): ...
def odd(a, b, c): ...
class Desk:
    async def answer(self, run, turn): ...
    async def __call__(self, text): ...
desk = Desk()
number = 7
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's code, where the command is typed."""
    (tmp_path / "shop_agent.py").write_text(CODE)
    (tmp_path / "broken_agent.py").write_text("import json\njson.loads('{')\n")
    (tmp_path / "leaving_agent.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "needing_agent.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "shape", "asynchronous"),
    [("answer", "run", True), ("whole", "desk", False), ("plain", "text", False), ("desk", "text", True),
     ("desk.answer", "run", True)],
)  # fmt: skip
def test_a_function_is_called_as_its_parameters_say(name: str, shape: str, asynchronous: bool) -> None:
    found = calling.find(f"shop_agent:{name}")
    assert (found.shape, found.asynchronous) == (shape, asynchronous)


@pytest.mark.usefixtures("here")
def test_a_file_can_be_named() -> None:
    assert calling.find("shop_agent.py:answer").shape == "run"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop_agent", "write module:function, or file.py:function"),
        ("shop_agnet:answer", "there is no module 'shop_agnet': run this in the folder that holds it"),
        ("no_such.py:answer", "there is no file no_such.py"),
        ("shop_agent:anser", "shop_agent has no 'anser': did you mean 'answer'?"),
        ("shop_agent:xyz", "shop_agent has no 'xyz': it has answer, whole, plain, odd, Desk"),
        ("shop_agent:number", "number is no function but int"),
        ("shop_agent:odd", "it takes a, b, c: it has to take (run, turn), (desk, text) or (text)"),
        ("broken_agent:answer", "importing broken_agent failed: JSONDecodeError: Expecting property name"),
        ("leaving_agent:answer", "importing leaving_agent failed: SystemExit: 3"),
        ("needing_agent:answer", "importing needing_agent failed: ModuleNotFoundError: No module named"),
    ],
)
def test_a_target_that_is_not_there_is_one_line_that_names_the_mend(target: str, said: str) -> None:
    with pytest.raises(BadTarget) as found:
        calling.find(target)
    assert str(found.value).startswith(f"--target {target}: {said}")
    assert "\n" not in str(found.value)
