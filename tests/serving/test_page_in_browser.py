"""The page in headless Chromium, by what a person does."""

import contextlib

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from glm_jax.serving.asking import FullError
from tests.generation import chat_stand_ins
from tests.serving import chromium, fakes
from tests.serving.small_models import decoder_of, small_filler

pytestmark = pytest.mark.browser

SENTENCE = "In the beginning God created the heavens and the earth."


@pytest.fixture(scope="module")
def driver():
    driver = chromium.start()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def lm():
    return small_filler()


@pytest.fixture(scope="module")
def decoder(lm):
    return decoder_of(lm, 256)


@pytest.fixture(scope="module")
def address(lm, decoder):
    with fakes.served(decoder, lm, "small") as address:
        yield address


@pytest.fixture
def person(driver, address):
    """In front of the page of a model that fills blanks."""
    someone = chromium.Person(driver, address).visits().wants_short_answers()
    yield someone
    someone.look()


@contextlib.contextmanager
def chatting(driver, say, **options):
    """In front of the page of a model that chats, and says this."""
    decoder = fakes.FakeDecoder(say, **options)
    with fakes.served(decoder, chat_stand_ins.model(fakes.Bytes(), max_positions=4096)) as address:
        someone = chromium.Person(driver, address).visits()
        yield someone
        someone.look()


def test_words_are_blanked_by_mouse_and_keyboard_and_filled(person, decoder):
    person.types_sentence(SENTENCE)
    assert [one.text for one in person.all(".word")][:4] == ["In", "the", "beginning", "God"]
    assert person.one("#fill").get_attribute("disabled")
    person.word("God").click()
    person.presses(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert person.focus.text == "heavens"
    person.presses(Keys.ENTER)
    assert [one.get_attribute("aria-label") for one in person.all(".pill")] == [
        "Blank 1, was God",
        "Blank 2, was heavens",
    ]
    assert person.focus.get_attribute("aria-label") == "Blank 2, was heavens"
    person.fills()
    asked = decoder.asked[-2:]
    assert [len(one.prompt.blanks) for one in asked] == [2, 2]
    assert asked[0].prompt.blanks == asked[1].prompt.blanks[::-1]
    probabilities = person.texts(".pill .probability")
    assert len(probabilities) == 2
    assert all("%" in one or "1 in" in one or "10⁻" in one for one in probabilities)
    assert len(person.all("#compare .way")) == 2
    first, second = asked[0].prompt.blanks  # their positions, under each token of the drawing
    assert person.texts("#drawing .cell.mask") == [
        f"blank 1\n{first} · 0",
        f"blank 2\n{second} · 0",
    ]


def test_a_blank_is_clicked_again_to_bring_its_words_back(person):
    person.types_sentence(SENTENCE)
    person.word("God").click()
    person.clicks(".pill")
    assert person.all(".pill") == []
    assert person.word("God").get_attribute("aria-pressed") == "false"
    person.presses(" ")
    assert len(person.all(".pill")) == 1
    person.presses(Keys.DELETE)
    assert person.all(".pill") == []


def test_words_are_blanked_together_by_dragging_and_with_shift(person):
    person.types_sentence(SENTENCE)
    drag = ActionChains(person.driver, duration=50).click_and_hold(person.word("beginning"))
    drag.move_to_element(person.word("created")).release().perform()
    assert person.one(".pill").get_attribute("aria-label") == "Blank 1, was beginning God created"
    person.word("earth").click()
    person.clicks(".pill", 1)
    person.presses(Keys.SHIFT, Keys.ARROW_LEFT)
    assert person.one(".pill", 1).get_attribute("aria-label") == "Blank 2, was the earth"


def test_an_alternative_is_chosen_and_counts_as_text(person, decoder):
    person.types_sentence(SENTENCE)
    for word in ("God", "earth"):
        person.word(word).click()
    person.fills()
    assert person.one(".pill").get_attribute("title").startswith("or ")
    person.clicks(".pill")
    assert person.shown("#popover")
    person.presses(Keys.ESCAPE)
    assert not person.shown("#popover")
    assert person.focus.get_attribute("class").startswith("pill")
    person.presses(Keys.ENTER)
    choice = person.one("#popover .choice", 1)
    wanted = choice.find_element("css selector", ".what").text
    choice.click()
    assert person.text(".pill .answer") == wanted
    assert person.text(".pill .probability") == "your choice"
    person.fills()
    assert len(decoder.asked[-1].prompt.blanks) == 1
    assert person.text(".pill .answer") == wanted


def test_the_order_is_changed_and_both_are_shown(person, decoder):
    person.types_sentence(SENTENCE)
    for word in ("God", "earth"):
        person.word(word).click()
    assert person.texts("#order .grip span") == ["God", "earth"]
    person.one("#order [data-move=later]").send_keys(Keys.ENTER)
    assert person.texts("#order .grip span") == ["earth", "God"]
    assert person.texts(".pill .number") == ["2", "1"]
    assert person.focus.get_attribute("aria-label") == "God: earlier"  # it goes with what moved
    person.fills()
    first, second = (one.prompt.blanks for one in decoder.asked[-2:])
    assert first == second[::-1] == sorted(second)[::-1]
    assert person.texts("#compare h3") == ["Your order", "Left to right"]
    assert len(person.all("#compare .total b")) == 2
    drag = ActionChains(person.driver, duration=50).click_and_hold(person.one("#order .grip"))
    drag.move_to_element(person.one("#order li:last-child [data-move]")).release().perform()
    assert person.texts(".pill .number") == ["1", "2"]


def test_other_ways_are_searched_and_one_is_put_in(person):
    person.types_sentence("the king of the land")
    person.word("king").click()
    person.clicks("#search")
    ways = person.waits(lambda: person.all("#ways button"))
    assert len(ways) == 5
    assert ways[0].text.splitlines()[0].startswith("the ")
    answer, much = ways[1].find_element("css selector", "mark").text, ways[1].text.splitlines()[-1]
    ways[1].click()
    assert person.text(".pill .answer") == answer
    assert person.text(".pill .probability") == "from the search"
    assert person.text("#status") == f"Put in: {answer}, together {much}."


def test_letters_that_spell_a_mask_stay_letters(person, decoder, lm):
    person.types_sentence("the [MASK] and [CLS] of words")
    person.word("words").click()
    person.fills()
    ids = decoder.asked[-1].prompt.ids
    special = lm.tokenizer.special
    assert [one for one in ids if one < 9] == [special.cls, special.mask, special.eos]


def test_chinese_is_blanked_by_words(person):
    person.types_sentence("床前明月光，疑是地上霜。")
    words = [one.text for one in person.all(".word")]
    assert "".join(words) == "床前明月光疑是地上霜"
    assert 4 <= len(words) < 10
    person.clicks(".word", 1)
    assert len(person.all(".pill")) == 1
    assert person.one("#board").get_attribute("lang") == "zh"


def test_probabilities_are_written_shortly(person):
    found = person.runs(
        """return import("/page/dom.js").then(({ percent }) =>
          [0, 0.7708, 0.0512, 0.00312, 0.00002, 3.1e-9, 2e-21, 0.997, 0.9999, 1].map(
            (one) => percent(one)));"""
    )
    short = ["0.31 %", "1 in 50,000", "3 × 10⁻⁹", "2 × 10⁻²¹"]
    assert found == ["0 %", "77 %", "5.1 %", *short, "99.7 %", "100 %", "100 %"]


def test_light_and_dark(driver, address):
    def background():
        return dark.runs("return getComputedStyle(document.body).backgroundColor")

    dark = chromium.Person(driver, address).visits(prefers_color_scheme="dark")
    assert background() == "rgb(24, 23, 21)"
    assert dark.one("#theme").get_attribute("aria-pressed") == "true"
    dark.clicks("#theme")
    assert background() == "rgb(250, 248, 243)"
    dark.clicks("#theme")
    assert background() == "rgb(24, 23, 21)"
    dark.look()


def test_a_phone_scrolls_in_one_direction_alone(driver, address):
    phone = chromium.Person(driver, address).visits(360, 700).wants_short_answers()

    def width():
        return phone.runs("return document.scrollingElement.scrollWidth")

    assert width() == 360
    phone.types_sentence(f"{'Llanfairpwllgwyngyllgogerychwyrndrobwll' * 2} is far away from here.")
    phone.word("far").click()
    phone.word("here").click()
    phone.fills()
    assert width() == 360
    phone.clicks(".pill", -1)
    assert phone.shown("#popover")
    assert width() == 360
    phone.look()


def test_the_tab_key_meets_everything_once_and_focus_is_seen(person):
    person.runs("document.activeElement.blur(); window.scrollTo(0, 0)")
    person.one("body").send_keys(Keys.TAB)
    met = []
    for _ in range(8):
        element = person.focus
        met.append(element.get_attribute("id") or element.get_attribute("class"))
        assert person.runs("return getComputedStyle(arguments[0]).outlineStyle", element) != "none"
        person.presses(Keys.TAB)
    assert met[:2] == ["skip", "theme"]
    assert met[2].split()[0] in ("word", "pill")  # the board is one stop
    assert met[3:6] == ["edit", "restore", "fill"]


def test_motion_is_reduced_where_it_is_asked_for(driver, address):
    calm = (
        chromium.Person(driver, address)
        .visits(prefers_reduced_motion="reduce")
        .wants_short_answers()
    )
    calm.fills()
    assert calm.runs("return document.querySelector('.pill').getAnimations({subtree: true})") == []
    calm.look()


def test_a_key_is_asked_for_and_kept(driver, lm):
    with fakes.served(decoder_of(lm, 256), lm, "small", keys=["right"]) as address:
        someone = chromium.Person(driver, address).visits().wants_short_answers()
        someone.clicks("#fill")
        someone.waits(lambda: someone.shown("#key"))
        assert someone.focus.get_attribute("id") == "key"
        someone.presses("wrong", Keys.ENTER)
        someone.waits(lambda: "does not know this key" in someone.text("#key-text"))
        someone.presses("right", Keys.ENTER)
        someone.waits(lambda: someone.text("#status").startswith("Filled"))
        assert not someone.shown("#key-dialog")
        assert someone.runs("return sessionStorage.getItem('glm_jax.key')") == "right"
        someone.fills()
        someone.look(network=True)


def test_errors_are_one_sentence_where_they_arose(driver, address, decoder):
    someone = chromium.Person(driver, address).visits()
    someone.clicks("#controls summary")
    someone.runs("document.getElementById('longest').value = 0")
    someone.fills()
    assert someone.text("#problem").startswith("The longest answer must be a whole number")
    someone.runs("document.getElementById('longest').value = 9999")
    someone.fills()
    assert "max_tokens=9999 does not fit the context of 256 tokens." in someone.text("#problem")
    someone.runs("document.getElementById('longest').value = 4")
    decoder.refuse = FullError(1.0)
    someone.clicks("#fill")
    someone.waits(
        lambda: "The server is full; it is asked again in 1 s." in someone.text("#status")
    )
    assert not someone.shown("#problem")
    someone.waits(lambda: someone.text("#status").startswith("Filled"))
    someone.look(network=True)


def test_filling_is_stopped(person, decoder, monkeypatch):
    monkeypatch.setattr(decoder, "delay", 0.3)
    monkeypatch.setattr(decoder, "state", "compiling")
    person.clicks("#fill")
    person.waits(lambda: person.shown("#stop"))
    person.waits(lambda: "still compiling its programs" in person.text("#status"))
    person.clicks("#stop")
    person.waits(lambda: person.text("#status") == "Stopped.")
    tickets = decoder.tickets[-2:]
    person.waits(lambda: all(one.cancelled for one in tickets))
    person.waits(lambda: not person.one("#fill").get_attribute("disabled"))


def test_a_chat_streams_and_markup_stays_text(driver):
    with chatting(driver, fakes.say("<think>a thought</think>1 < 2 <b>bold</b>\nsecond")) as person:
        assert not person.shown("#blanks")
        person.one("#say").send_keys("hello", Keys.ENTER)
        person.waits(lambda: person.text("#chat-status") == "Answered.")
        assert person.texts(".message.user") == ["hello"]
        assert person.text(".message .text") == "1 < 2 <b>bold</b>\nsecond"
        assert not person.shown(".thought")
        person.clicks(".message summary")
        assert person.text(".thought") == "a thought"
        person.clicks("#clear")
        assert person.all(".message") == []
        assert person.texts(".empty") == ["Nothing has been said yet."]


def test_calls_of_tools_are_blocks_and_go_back_as_they_came(person):
    """From the deltas of a stream, without a model that calls: the page describes no tools."""
    found = person.runs(
        """return import("/page/chat.js").then(({ Answer }) => {
          const answer = new Answer();
          const add = (call) => answer.add({ tool_calls: [{ index: 0, ...call }] });
          add({ id: "a", function: { name: "see", arguments: "" } });
          add({ function: { arguments: '{"x": "<i>"}' } });
          answer.end();
          return [answer.node.querySelector("pre").textContent, answer.message()];
        });"""
    )
    assert found[0] == 'see({"x": "<i>"})'
    function = {"name": "see", "arguments": '{"x": "<i>"}'}
    call = {"id": "a", "type": "function", "function": function}
    assert found[1] == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_a_chat_is_stopped_and_goes_on(driver):
    with chatting(driver, fakes.say("word " * 200), delay=0.03) as person:
        person.clicks(".system summary")
        person.one("#system").send_keys("be brief")
        person.one("#say").send_keys("first", Keys.ENTER)
        person.waits(lambda: person.text(".message .text").startswith("word word"))
        person.clicks("#chat-stop")
        person.waits(lambda: person.text("#chat-status") == "Stopped.")
        said = person.text(".message .text")
        assert len(said) < 900
        assert "stopped by you" in person.text(".message .foot")
        person.one("#say").send_keys("second", Keys.ENTER)
        person.waits(lambda: len(person.texts(".message .text")) == 2)
        person.waits(lambda: person.texts(".message .text")[1].startswith("word"))
        person.clicks("#chat-stop")
        assert person.texts(".message .text")[0] == said
