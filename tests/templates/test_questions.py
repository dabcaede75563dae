"""Question templates: the study's own words, where they are cut, and what a user's file can get wrong."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from jaxvalues.data.arguments import AGAINST, IN_FAVOR, Argument
from jaxvalues.data.loading import load_split
from jaxvalues.data.task import STANCE
from jaxvalues.data.taxonomy import CATEGORIES, category_index
from jaxvalues.data.tokenizers import train_tokenizer
from jaxvalues.errors import ConfigError
from jaxvalues.templates import questions, template
from jaxvalues.templates.descriptions import load_descriptions
from jaxvalues.templates.questions import QuestionTemplate, load_question_template

ARGUMENT = Argument("A1", "We should ban {whaling}", AGAINST, "whales  are {mask} tasty")
HEDONISM = category_index("Hedonism")


def whole(template: QuestionTemplate, category: int, argument: Argument, mask: str = " <mask>") -> str:
    return template.context(argument) + mask.join(template.question(category, argument))


def from_file(folder: Path, text: str, descriptions: str | None = None, masked: bool | None = None) -> QuestionTemplate:
    (folder / "mine.txt").write_bytes(text.encode())
    return load_question_template(str(folder / "mine.txt"), descriptions, masked=masked)


def test_the_studys_templates() -> None:
    given = (
        "Given the premise: whales  are {mask} tasty and the conclusion: We should ban {whaling} against it. "
        "Is it based on the Hedonism?"
    )
    assert whole(load_question_template("masked_choice"), HEDONISM, ARGUMENT) == f"{given} <mask>"
    assert whole(load_question_template("answer"), HEDONISM, ARGUMENT) == f"Question: {given} The answer is"
    assert whole(load_question_template("open_answer", "values"), HEDONISM, Argument("A1", "c", IN_FAVOR, "p")) == (
        "Hedonism: have pleasure. I claim that c because I supporting the p. In the aspect of Hedonism, use some words "
        "to describe what kind of person am I?"
    )


@pytest.mark.parametrize(
    ("name", "has_mask", "shares_context"),
    [("masked_choice", True, True), ("answer", False, True), ("open_answer", False, False)],
)
def test_the_cut_is_before_the_blank_before_the_first_slot_of_a_category(
    name: str, has_mask: bool, shares_context: bool
) -> None:
    template = load_question_template(name, masked=has_mask)
    assert (template.has_mask, template.shares_context) == (has_mask, shares_context)
    first, *rest = template.question(HEDONISM, ARGUMENT)
    assert rest == [""] * has_mask  # a mask ends the text
    if shares_context:
        assert template.context(ARGUMENT).endswith("against it. Is it based on the")
        assert first == " Hedonism?" + " The answer is" * (not has_mask)
        assert template.question(HEDONISM, Argument("A2", "c", IN_FAVOR, "p")) == (first, *rest)
    else:
        assert template.context(ARGUMENT) == ""


@pytest.mark.parametrize(
    ("text", "context", "question", "shares_context"),
    [
        ("{premise}\n is  {category}\n", "p is", (" Hedonism",), True),
        ("{premise} ({category})", "p", (" (Hedonism)",), True),
        ("Is it: {premise}({category})?", "Is it:", (" p(Hedonism)?",), False),  # no blank parts the two
        ("{premise}{category}", "", ("pHedonism",), False),
        ("{premise} {mask} is {category}!", "p", ("", " is Hedonism!"), True),
        ("{premise} {category} ({mask})", "p", (" Hedonism (", ")"), True),
        ("{mask}: {category} {premise}", "", ("", ": Hedonism p"), False),
        ("{premise} {category} {conclusion}", "p", (" Hedonism c",), False),
        ("{{premise}} {premise} {{mask}} {category}{mask}", "{premise} p {mask}", (" Hedonism", ""), True),
        ("{premise} {category} {{premise}}", "p", (" Hedonism {premise}",), True),
    ],
)
def test_where_a_users_template_is_cut(
    text: str, context: str, question: tuple[str, ...], shares_context: bool, tmp_path: Path
) -> None:
    template = from_file(tmp_path, text)
    argument = Argument("A1", "c", IN_FAVOR, "p")
    assert (template.context(argument), template.question(HEDONISM, argument)) == (context, question)
    assert template.shares_context == shares_context
    assert from_file(tmp_path, template.text) == template


@pytest.mark.parametrize("name", questions.BUILT_IN)
def test_one_file_holds_template_and_descriptions(name: str, tmp_path: Path) -> None:
    rows = "".join(f"{category}\tis {{{category}}} {{mask}}.\n" for category in reversed(CATEGORIES))
    (tmp_path / "mine.tsv").write_text(f"Category\tDescription\n{rows}", encoding="utf-8")
    for descriptions in ("definition", str(tmp_path / "mine.tsv")):
        template = load_question_template(name, descriptions)
        for ending in ("", "\n", "\r\n"):
            again = from_file(tmp_path, template.text.replace("\n", ending or "\n") + ending)
            assert (again.text, again.descriptions) == (template.text, template.descriptions)
            assert whole(again, HEDONISM, ARGUMENT) == whole(template, HEDONISM, ARGUMENT)
    assert template.descriptions[HEDONISM] == "is {Hedonism} {mask}"
    assert template.text.startswith((resources.files("jaxvalues.templates") / "texts" / f"{name}.txt").read_text())


def test_without_any_descriptions_names_fill_the_slot() -> None:
    assert load_question_template("answer").descriptions == CATEGORIES
    assert load_question_template("answer", "values").descriptions == tuple(load_descriptions("values").values())


def test_every_template_that_comes_with_jaxvalues_is_of_one_kind() -> None:
    files = (resources.files("jaxvalues.templates") / "texts").iterdir()
    names = (*template.BUILT_IN, *questions.BUILT_IN, *questions.BUILT_IN_STANCE, "label_list", "chain_of_thought")
    assert sorted(file.name for file in files) == sorted(f"{name}.txt" for name in names)


@pytest.mark.parametrize(
    ("text", "masked", "said"),
    [
        ("{premise} {topic}", None, "unknown slot {topic}; known slots: premise, conclusion, stance, desc"),
        ("{premise} {sep} {category}", None, "unknown slot {sep}"),
        ("{premise} {category!r}", None, "unknown slot {category!r}"),
        ("{category}", None, "the slot {premise} is missing"),
        ("{category} {premise", None, "expected '}' before end of string"),
        ("", None, "the slot {premise} is missing"),
        ("{premise} {mask}", None, "the slot {description} or {category} is missing"),
        ("{premise} {mask} {category} {mask}", True, "the slot {mask} occurs 2 times, expected once"),
        ("{premise} {category} {{mask}}", True, "the slot {mask} is missing"),
        ("{premise} {category} {mask}", False, "the slot {mask} is only for masked language models"),
        ("{premise}{category}\0", None, "line 1: the line contains a NUL byte"),
        ("{premise} {category}\nCategory\tDescription\nHedonismus\tfun", None, "line 3: there is no category `Hedoni"),
        ("{premise} {category}\nCategory\tDescription\nFace\t \n", None, "line 3: the description of Face is empty"),
        ("{premise} {category}\n\nCategory\tDescription\nFace\n", None, "line 4: the description of Face is empty"),
        (
            "{premise} {category}\nCategory\tDescription\nFace\ta\nFace\tb\n",
            None,
            "line 4: the category Face is already in line 3",
        ),
        (
            "{premise} {category}\nCategory\tDescription\n",
            None,
            "no description of Self-direction: thought, Self-direction: action, Stimulation and 17 more",
        ),
    ],
)
def test_a_wrong_template_is_named_in_a_sentence(text: str, masked: bool | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        from_file(tmp_path, text, masked=masked)
    assert said in str(error.value)
    assert str(tmp_path / "mine.txt") in str(error.value)
    assert "\n" not in str(error.value)


def test_descriptions_given_twice_are_refused(tmp_path: Path) -> None:
    text = load_question_template("answer").text
    with pytest.raises(ConfigError, match=r"mine\.txt holds descriptions of its own"):
        from_file(tmp_path, text, "definition")


def test_an_unknown_template_lists_those_that_ask() -> None:
    with pytest.raises(ConfigError, match=r"is neither one of masked_choice, answer, answer_chat, open_answer"):
        load_question_template("cls")


def test_the_templates_of_the_stance_ask_once_and_do_not_show_it() -> None:
    given = "Given the premise: whales  are {mask} tasty and the conclusion: We should ban {whaling}. "
    given += "Does the premise support the conclusion?"
    for name, text in (("stance_masked", f"{given} <mask>"), ("stance_answer", f"Question: {given} The answer is")):
        template = load_question_template(name, task=STANCE)
        assert whole(template, 0, ARGUMENT) == text
        assert (template.labels, template.descriptions) == (STANCE.labels, ())


def test_a_template_of_the_stance_reads_back_as_itself(tmp_path: Path) -> None:
    for name in questions.BUILT_IN_STANCE:
        template = load_question_template(name, task=STANCE)
        (tmp_path / "copy.txt").write_text(template.text)
        assert replace(load_question_template(str(tmp_path / "copy.txt"), task=STANCE), name=name) == template


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{premise} {stance} {conclusion}", "the slot {stance} contains the answer of data.task stance"),
        ("{premise} {category}", "unknown slot {category}; known slots: premise, conclusion, mask"),
        ("{premise}\nCategory\tDescription\n" + "".join(f"{c}\ta\n" for c in CATEGORIES), "holds descriptions of the"),
    ],
)
def test_a_template_of_the_stance_has_nothing_of_values(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_question_template(str(tmp_path / "mine.txt"), task=STANCE)
    assert said in str(error.value)


def test_context_and_question_have_the_tokens_of_the_whole_text(real_data: Path) -> None:
    arguments = load_split("validation", dir=real_data).arguments[::40]
    # What published arguments have not: no text, blanks of several kinds, and marks at the end of a text.
    odd = [Argument("A1", text, AGAINST, text) for text in ("", " c ", "c\u00a0 ", "c\n", "it's (so", "“c” 😀", "c.  ")]
    tokenizer = train_tokenizer((a.premise for a in arguments), 1000, 512)
    for name in questions.BUILT_IN:
        template = load_question_template(name, "definition")
        for number, argument in enumerate([*arguments, *odd]):
            category = number % len(CATEGORIES)
            parts = [template.context(argument), *template.question(category, argument)]
            *ids, together = tokenizer([*parts, whole(template, category, argument, "")], add_special_tokens=False)[
                "input_ids"
            ]
            assert [id for part in ids for id in part] == together
