"""Which texts are remarked on, and which are not."""

import pytest

from peft_scratch.experiments.remarks import remarks

FOREIGN = {
    "Persian": "فیلم بسیار خوبی بود و من آن را دوست داشتم",
    "Persian in Latin letters": "film kheili khoobi bood va man az didanesh lezzat bordam",
    "French": "Le film est magnifique, les acteurs jouent très bien et je le recommande à tous mes amis.",
    "German": "Ein wunderbarer Film mit großartigen Schauspielern, ich habe gelacht und geweint.",
    "Spanish": "Una película aburrida y lenta, con actores que no saben actuar y una historia sin sentido.",
    "Turkish": "Bu film gerçekten çok güzel, oyuncular harika, hikaye sürükleyici, herkese tavsiye ederim.",
    "Chinese": "这部电影非常好看",
    "mostly Persian": "great فیلم بسیار خوبی بود",
}
ENGLISH = (
    "fine",
    "Très émouvant, déjà vu",  # too short to tell
    "A warm and clever film. I laughed, I cried, and I would see it again tomorrow.",
    "Amélie by Jean-Pierre Jeunet is a film that I don\u2019t tire of: très, très beau, as the French say.",
    "Two hours of my life that I will not get back: flat jokes, wooden acting, no story.",
    "10/10 !!! best movie ever",
)


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_text_that_is_not_english_is_remarked_on(text):
    (remark,) = remarks(text, 5, 10)
    assert remark.endswith("the models were trained on English reviews only.")


@pytest.mark.parametrize("text", ENGLISH)
def test_english_is_not(text):
    assert remarks(text, 5, 10) == []


def test_an_empty_text_gets_one_remark():
    assert len(remarks(" \n\t", 1, 10)) == 1
    assert remarks("10 / 10 !!!", 5, 10)[0].startswith("There are no letters")


def test_a_text_that_was_not_looked_at_to_its_end_has_more_tokens():
    said = "The text has more than 21 tokens and the models read 10: the rest is cut off."
    assert remarks("fine", 21, 10, more=True) == [said]
