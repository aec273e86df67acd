from pathlib import Path

from common import errors


def test_every_error_is_drawn_in_the_tree():
    drawing = errors.__doc__ or ""

    for code, error in errors.TASK_ERRORS.items():
        assert f"{error.__name__} " in drawing
        assert drawing.count(f" {code}\n") == 1


def test_an_error_survives_the_way_through_a_process_or_a_topic():
    for code in errors.TASK_ERRORS:
        error = errors.task_error(code, "what happened", retryable=True)

        assert (error.code, error.message, error.retryable) == (code, "what happened", True)


def test_a_code_from_a_newer_version_becomes_an_internal_error():
    assert errors.task_error("not_yet_known", "x", retryable=False).code == "internal_error"


def test_the_readme_lists_every_code_and_no_other():
    readme = Path("README.md").read_text(encoding="utf-8")
    section = readme.split("## Error codes")[1].split("\n## ")[0]
    rows = [
        line.split("|")[1].strip(" `") for line in section.splitlines() if line.startswith("| `")
    ]

    assert rows == list(errors.TASK_ERRORS)
