"""The value taxonomy: 54 values in 20 categories in four higher-order groups, in the official column order.

All other modules take the names from here. These are levels 1 to 3 of the taxonomy of Kiesel et al. (ACL 2022,
"Identifying the Human Values behind Arguments"), which builds on Schwartz's refined theory of basic values (2012). The
descriptions are written for this package.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """One of the 20 value categories (level 2), which systems predict.

    `values` are its level 1 values. An argument has the category exactly when it has at least one of them. `groups` are
    its higher-order groups (level 3). Hedonism, Face and Humility belong to two groups.
    """

    name: str
    description: str
    values: tuple[str, ...]
    groups: tuple[str, ...]


OPENNESS, ENHANCEMENT, CONSERVATION, TRANSCENDENCE = (
    "Openness to change",
    "Self-enhancement",
    "Conservation",
    "Self-transcendence",
)

TAXONOMY: tuple[Category, ...] = (
    Category(
        "Self-direction: thought",
        "It is good to have ideas and interests of one's own, to be creative and curious, and to think freely.",
        ("Be creative", "Be curious", "Have freedom of thought"),
        (OPENNESS,),
    ),
    Category(
        "Self-direction: action",
        "It is good to decide for oneself what to do, to be independent, and to have a private life.",
        ("Be choosing own goals", "Be independent", "Have freedom of action", "Have privacy"),
        (OPENNESS,),
    ),
    Category(
        "Stimulation",
        "It is good to seek excitement, novelty, change and adventure in life.",
        ("Have an exciting life", "Have a varied life", "Be daring"),
        (OPENNESS,),
    ),
    Category(
        "Hedonism",
        "It is good to enjoy life and to have pleasure, fun and leisure.",
        ("Have pleasure",),
        (OPENNESS, ENHANCEMENT),
    ),
    Category(
        "Achievement",
        "It is good to be ambitious, skilled, clever and brave, and to succeed at what one does.",
        ("Be ambitious", "Have success", "Be capable", "Be intellectual", "Be courageous"),
        (ENHANCEMENT,),
    ),
    Category(
        "Power: dominance",
        "It is good to have influence over others, to lead, and to be the one who gives orders.",
        ("Have influence", "Have the right to command"),
        (ENHANCEMENT,),
    ),
    Category(
        "Power: resources",
        "It is good to have money and possessions, and the control over events that they bring.",
        ("Have wealth",),
        (ENHANCEMENT,),
    ),
    Category(
        "Face",
        "It is good to be respected, to keep a good reputation, and to avoid being humiliated.",
        ("Have social recognition", "Have a good reputation"),
        (ENHANCEMENT, CONSERVATION),
    ),
    Category(
        "Security: personal",
        "It is good for oneself and those close to one to be safe, healthy, free of debt, and somewhere they belong.",
        (
            "Have a sense of belonging",
            "Have good health",
            "Have no debts",
            "Be neat and tidy",
            "Have a comfortable life",
        ),
        (CONSERVATION,),
    ),
    Category(
        "Security: societal",
        "It is good to live in a safe country with a strong state and a stable social order.",
        ("Have a safe country", "Have a stable society"),
        (CONSERVATION,),
    ),
    Category(
        "Tradition",
        "It is good to keep up the customs of one's family and culture, or to live by one's religion.",
        ("Be respecting traditions", "Be holding religious faith"),
        (CONSERVATION,),
    ),
    Category(
        "Conformity: rules",
        "It is good to obey laws and rules, to have self-discipline, and to behave as one ought to.",
        ("Be compliant", "Be self-disciplined", "Be behaving properly"),
        (CONSERVATION,),
    ),
    Category(
        "Conformity: interpersonal",
        "It is good to be polite, not to upset or annoy other people, and to honor one's parents and elders.",
        ("Be polite", "Be honoring elders"),
        (CONSERVATION,),
    ),
    Category(
        "Humility",
        "It is good to be modest, not to think too much of oneself, and to be content with what life gives.",
        ("Be humble", "Have life accepted as is"),
        (CONSERVATION, TRANSCENDENCE),
    ),
    Category(
        "Benevolence: caring",
        "It is good to care for family and friends, and to be helpful, honest, forgiving and loving.",
        ("Be helpful", "Be honest", "Be forgiving", "Have the own family secured", "Be loving"),
        (TRANSCENDENCE,),
    ),
    Category(
        "Benevolence: dependability",
        "It is good to be reliable, to take responsibility, and to stand by one's friends.",
        ("Be responsible", "Have loyalty towards friends"),
        (TRANSCENDENCE,),
    ),
    Category(
        "Universalism: concern",
        "It is good to stand up for equality, justice, the weak, and peace for all people.",
        ("Have equality", "Be just", "Have a world at peace"),
        (TRANSCENDENCE,),
    ),
    Category(
        "Universalism: nature",
        "It is good to protect the environment, to live in harmony with nature, and to cherish beauty.",
        ("Be protecting the environment", "Have harmony with nature", "Have a world of beauty"),
        (TRANSCENDENCE,),
    ),
    Category(
        "Universalism: tolerance",
        "It is good to listen to people who are different, and to accept them even when one disagrees with them.",
        ("Be broadminded", "Have the wisdom to accept others"),
        (TRANSCENDENCE,),
    ),
    Category(
        "Universalism: objectivity",
        "It is good to be rational, to seek the truth, and to weigh the evidence without bias.",
        ("Be logical", "Have an objective view"),
        (TRANSCENDENCE,),
    ),
)

CATEGORIES: tuple[str, ...] = tuple(category.name for category in TAXONOMY)
VALUES: tuple[str, ...] = tuple(value for category in TAXONOMY for value in category.values)
VALUE_CATEGORY: tuple[int, ...] = tuple(i for i, category in enumerate(TAXONOMY) for _ in category.values)
"""The index of the category of each of the 54 values."""
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(category.name for category in TAXONOMY if group in category.groups)
    for group in (OPENNESS, ENHANCEMENT, CONSERVATION, TRANSCENDENCE)
}

SOURCES: dict[str, str] = {
    "A": "IBM-ArgQ-Rank-30kArgs",
    "C": "Zhihu",
    "D": "groupdiscussionideas.com",
    "E": "Conference on the Future of Europe",
    "F": "Nahj al-Balagha",
    "G": "New York Times",
    "S": "jaxvalues sample",
}
"""{first letter of an argument's ID: corpus}"""


def category_index(name: str) -> int:
    """The column of a category in label matrices [..., C]. Raises KeyError for an unknown name."""
    return _INDEX[name]


_INDEX = {name: i for i, name in enumerate(CATEGORIES)}
