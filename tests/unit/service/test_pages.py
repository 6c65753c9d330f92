"""The pages' texts, languages and policy, without a browser."""

import re
from importlib.resources import files

import numpy as np
import pytest

from components.pictures.heat import painted
from components.service.pages import LANGUAGES, PAGES, language_of, page, words
from tests.service_pages import Line

WEB = files("components.service").joinpath("web")


def test_the_dictionaries_have_the_same_keys_and_places():
    english, *others = [words(code) for code in LANGUAGES]
    for other in others:
        assert other.keys() == english.keys()
        for key, text in english.items():
            assert sorted(re.findall(r"{\w+}", other[key])) == sorted(re.findall(r"{\w+}", text)), key
            assert other[key].strip(), key


def test_every_text_that_a_page_asks_for_exists_and_every_one_is_asked_for():
    known, sources = words("en"), {e.name: e.read_text("utf-8") for e in WEB.iterdir() if e.is_file()}
    everything = "\n".join(sources.values())
    html = set(re.findall(r"{{([a-z_]+\.[a-z_]+|loading)}}", everything))
    script = set(re.findall(r"""["'`]([a-z]+\.[a-z_]+)["'`]""", everything))
    assert html - known.keys() == set()
    # Made of a beginning and a name: "decision." + record.decision, and phrases that the service names.
    begun = tuple({"title.", "nav.", "drift.", "decided.", *re.findall(r"""["'`]([a-z]+\.)["'`$]""", everything)})
    unused = {key for key in known if key not in html | script and not key.startswith(begun)}
    assert unused == set()


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("name", PAGES.values())
def test_pages_are_whole_in_each_language(name, code):
    text = page(name, code)
    assert f'<html lang="{code}">' in text
    assert "{{" not in text
    assert text.count("aria-current=page") == 1
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


@pytest.mark.parametrize(
    ("asked", "cookie", "accepted", "found"),
    [
        (None, None, "", "en"),
        (None, None, "de-AT,de;q=0.9,en;q=0.8", "de"),
        (None, None, "fr,en;q=0.3,de;q=0.5", "de"),
        (None, None, "de;q=0,en;q=0.1", "en"),
        (None, "de", "en", "de"),
        ("en", "de", "de", "en"),
        ("xx", None, ";;q=,\x00", "en"),
    ],
)
def test_the_language_is_that_of_the_switch_then_the_choice_then_the_browser(asked, cookie, accepted, found):
    assert language_of(asked, cookie, accepted) == found


def test_pages_hold_the_browser_to_asking_nobody_else(bundle, tmp_path):
    http = Line(bundle, tmp_path).http
    for path in PAGES:
        answer = http.get(path)
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert http.get("/static/style.css").headers["content-type"].startswith("text/css")
    for name in ("../pages.py", "shell.html", "none.css", "words/en.json"):
        assert http.get(f"/static/{name}").status_code == 404
    assert http.get("/models?lang=de").cookies["loupe-lang"] == "de"


def test_the_legend_of_the_page_has_the_colours_of_the_heat_maps():
    """Over the legend's grey, at every place of the ramp that the style names, as near as the eye can tell."""
    css = WEB.joinpath("parts.css").read_text("utf-8")
    ramp = css[css.index(".legend .ramp") :].split("}")[0]
    grey = int(re.search(r"#([0-9a-f]{2})\1\1", ramp)[1], 16)
    stops = re.findall(r"rgb\((\d+) (\d+) (\d+) / (\d+)%\)(?: (\d+)%)?", ramp)
    places = [0.0, *(float(place) / 100 for *_, place in stops[1:-1]), 1.0]
    heat = np.array([places])
    drawn = painted(np.full((1, len(places), 3), grey, np.uint8), heat, {"0.99": 0.0, "1.0": 0.5})[0]
    shown = [
        [int(alpha) / 100 * int(c) + (1 - int(alpha) / 100) * grey for c in (r, g, b)] for r, g, b, alpha, _ in stops
    ]
    assert len(stops) == 6
    assert np.abs(drawn - np.array(shown)).max() < 4
