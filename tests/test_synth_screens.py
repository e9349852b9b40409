"""The screens of web text and code: what is masked, what is left alone, and what a toxicity score answers to."""

from __future__ import annotations

import ast
import json
import os
import random
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from synth.personal_data import CARD, EMAIL, IBAN, IPV4, IPV6, KEY, PHONE, SOCIAL_SECURITY, mask_personal_data
from synth.python_library import read_python_library
from synth.toxicity import TOXIC, toxicity
from synth.wikipedia import read_wikipedia

# kind, a text, the same masked
PERSONAL = [
    ("email", "Write to Anna.Kowalska+web@uni-koeln.de, please.", f"Write to {EMAIL}, please."),
    ("email", "mailto:o_brien@mail.bbc.co.uk.", f"mailto:{EMAIL}."),
    ("email", "пётр@mail.ru schrieb", f"{EMAIL} schrieb"),
    ("email", "jane [at] honeyfarm [dot] org", EMAIL),
    ("email", "E-mail jane at honeyfarm dot com", f"E-mail {EMAIL}"),
    ("email", "jane.doe7 at honeyfarm dot com", EMAIL),
    ("email", "Contact...jane@honeyfarm.com – -jane@honeyfarm.com", f"Contact...{EMAIL} – -{EMAIL}"),
    ("email", "print('hello\\nbob@acme.io')", f"print('hello\\n{EMAIL}')"),
    ("phone", "Call (212) 736-5000 or 212.736.5001.", f"Call {PHONE} or {PHONE}."),
    ("phone", "Ring +44 (0)20 7946 1234, or +12127365000", f"Ring {PHONE}, or {PHONE}"),
    ("phone", "London: 020 7353 2000; Tél. : 01 42 68 53 00", f"London: {PHONE}; Tél. : {PHONE}"),
    ("phone", "Fax 0049 30 1234567; 0044 (0)20 7946 1234", f"Fax {PHONE}; {PHONE}"),
    ("phone", "text me at 60123456 or his cell 98123456", f"text me at {PHONE} or his cell {PHONE}"),
    ("phone", "+44\u00a020\u00a07946\u00a00958 – or 212\u2011736\u20135000", f"{PHONE} – or {PHONE}"),
    ("phone", "Tel: 736-5000", f"Tel: {PHONE}"),
    ("phone", "He can be reached at 9865167612", f"He can be reached at {PHONE}"),
    ("card", "Visa: 4539 1488 0343 6467, exp 09/27", f"Visa: {CARD}, exp 09/27"),
    ("card", "paid with 4539148803436467", f"paid with {CARD}"),
    ("card", "Visa 4539\u00a01488\u00a00343\u00a06467", f"Visa {CARD}"),
    ("ip", "Failed login from 93.184.216.34 port 22", f"Failed login from {IPV4} port 22"),
    ("ip", "http://93.184.216.34/x and [2a02:2f0c:8e40::1]:80", f"http://{IPV4}/x and [{IPV6}]:80"),
    ("key", f"token sk-proj-{'aB3x' * 12}", f"token {KEY}"),
    ("key", f"AKIA{'Q7ZW' * 4} and ghp_{'a1B2' * 9}", f"{KEY} and {KEY}"),
    ("key", "postgres://bob:s3cr3tpw9@db.acme.io/x", f"postgres://bob:{KEY}@db.acme.io/x"),
    ("key", 'api_key = "9f8e7d6c5b4a39281706"', f'api_key = "{KEY}"'),
    (
        "key",
        "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEow+/x\n" * 9 + "-----END RSA PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n-----END RSA PRIVATE KEY-----",
    ),
    ("iban", "IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", f"IBAN {IBAN} BIC COBADEFF"),
    ("social_security", "his SSN, 219-09-9998, was", f"his SSN, {SOCIAL_SECURITY}, was"),
    ("social_security", "SSN 219–09–9998", f"SSN {SOCIAL_SECURITY}"),
]

NOT_PERSONAL = [
    "user@example.com wrote to admin@db.test from root@localhost",
    "git clone git@github.com:acme/mill.git",
    "y = x@w.T + a@self.weight.mT(1) @ b",
    "greet = '%s@%s.com' % (user, host)",
    "Version 45.32.28.91 of the firmware, v4.60.81.126, section 8.2.4.45, foo-31.42.53.64.tar.gz, Chrome/45.32.28.91",
    "192.168.1.1, 127.0.0.1, 10.0.0.1, 224.0.0.251, 203.0.113.9 and 999.1.1.1",
    "std::vector, 12:30:45, abc::def, ::1, fe80::1, 2001:db8::7",
    "Pages 212-236 of 2010-2011, ISBN 978-0-306-40615-7, ISSN 0378-5955, on 2012-10-12 at 10.30",
    "call 2010-2011 seasons; taught there (06/2008-2010)",
    "text 1914 1918; +4294967296 is 2**32; -2147483648 to +2147483647",
    "pi = 3.14159265358979, e = [2, 718, 2818, 284590], 1,234,567,890 people",
    "Order 4539148803436467 has arrived; default_rng(348932549825235)",
    "4539 1488 0343 6468 fails its check digit",
    "Call 202-555-0147 in the film.",
    'password = "your-password-here1"; token = get_token("abc12345"); key="subsampling.0.weight"',
    "AKIAIOSFODNN7EXAMPLE and sk-learn-contrib-something-very-long",
    "DE89 3704 0044 0532 0130 01 has a wrong check digit",
    "I bought it at amazon dot com; contact us at npr dot org; he worked at google dot com",
    "Earnings call on 2015-03-12, conference call on 12.03.2015, text on 12-11-2013",
    "The text is 100 000 000 characters, each cell is 10 000 000 atoms; cell 12345678 was divided",
    "call number 8132046 of the library; we call 1 800 000 000 people; call 12 345 678 voters",
    "Frames 0045 0046 0047, lines 0020 0030 0040, bytes 00 20 45 12 34 56 78, hours 0600 1200 1800",
    "Winning numbers: 05 12 23 34 45. Lessons 01 02 03 04 05, matrix 01 10 11 00 01",
    "ISBN 0306 406 157, UPC 036000 291452, part number 440-356-1290, a profit of +20 123 456 dollars",
    "1914–1918 – in\u00a0the 1930s–1940s, pages 212–236, 10\u00a0000\u00a0000 people",
    "OID 2.5.29.37 and 1.3.132.34, taken 2015:12:25:08:30:00:11:22",
    "000-12-3456, 666-12-3456 and 912-12-3456 were never assigned",
]


@pytest.mark.parametrize(("kind", "text", "masked"), PERSONAL)
def test_personal_data_is_replaced_by_nobodys(kind: str, text: str, masked: str) -> None:
    result = mask_personal_data(text)
    assert result.text == masked
    assert set(result.counts) == {kind}
    again = mask_personal_data(result.text)
    assert (again.text, again.counts) == (masked, {})


@pytest.mark.parametrize("text", NOT_PERSONAL)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert mask_personal_data(text).text == text


def test_places_are_counted_by_kind() -> None:
    result = mask_personal_data("a.b@acme.io, c@acme.io, call 212-736-5000, http://93.184.216.34/")
    assert result.counts == {"email": 2, "phone": 1, "ip": 1}


def test_masking_again_changes_nothing_in_any_mixture() -> None:
    rng = random.Random(11)
    pieces = [text for _, text, _ in PERSONAL] + NOT_PERSONAL
    pieces += ["+1 ", "tel ", "0", "00 ", "(", ": ", "@", ".", "-", " ", EMAIL, PHONE, CARD, IPV4, IPV6, KEY, IBAN]
    pieces += [SOCIAL_SECURITY, "://a:", "=", '"', "\n", "visa "]
    for _ in range(2_000):
        text = rng.choice(["", " ", "-"]).join(rng.choices(pieces, k=6))
        once = mask_personal_data(text).text
        assert mask_personal_data(once).text == once, text


@pytest.mark.parametrize(
    "unit",
    [
        *("a@", "a.", "a@a.", "1234567890", "1 2 3 4 ", "4444 ", "1.", "2001:", "2:", "AB12", "AB12 ", "eyJ", "(", "-"),
        *("eyJaaaaaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "sk-a1", "phone 1", "+44 ", "call us at ", "://a:", "01 "),
        *('password="', "123-45-", "a at b dot ", "a[at]b.", "kill yourself ", "f*", "women are all ", "you fucking "),
    ],
)
def test_text_made_to_be_slow_takes_no_time(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    started = time.process_time()
    mask_personal_data(text)
    toxicity(text)
    assert time.process_time() - started < 8  # 0.05 to 1 s here; what is not linear takes hours


def test_programs_still_mean_what_they_meant() -> None:
    """The standard library with string constants blanked parses to the same tree."""
    masked = 0
    for source in islice(read_python_library(0), 60):
        assert toxicity(source.text) <= TOXIC, source.origin
        result = mask_personal_data(source.text)
        masked += sum(result.counts.values())
        if result.counts:
            assert _without_strings(result.text) == _without_strings(source.text), source.origin
    assert masked > 5


def _without_strings(program: str) -> str:
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            node.value = ""
    return ast.dump(tree)


CLEAN = (
    "The committee met on Tuesday to discuss the new bridge, and nobody could agree on the colour of its railings. "
    "After lunch they walked to the river and looked at the old one, which was built by hand in 1871 and still stands. "
)
HOSTILE = [
    "Women are too stupid to vote and everybody knows it.",
    "These immigrants are nothing but parasites living off my taxes.",
    "Go kill yourself, you worthless piece of trash.",
    "Another filthy kike trying to get rich off the rest of us.",
    "Hot naked teens and horny milfs are waiting for you.",
    "What the fuck is wrong with you, you stupid fucking cunt?",
]
# Each of them says something that a list of bad subjects would bar.
SUBJECTS = [
    "The court convicted him of rape and murder; the prosecutor had asked for life in prison without parole.",
    "Breast cancer and tumours of the penis, vagina and anus may be caused by the same virus, passed on in sex.",
    "Six million Jews were murdered by the Nazis, most of them gassed in Auschwitz, Treblinka and Sobibor.",
    "Suicide is the second leading cause of death among gay teenagers; call a doctor if you think of killing yourself.",
    "Slaves were whipped, branded and lynched, and black people were called inferior by law for another century.",
    "Police shot and killed three black men; immigrants and Muslims are afraid, women are marching against violence.",
    "A great tit, a pussy willow, a chink in the armour, a beak with horny plates; Pussy Riot sang, Alan Cumming came.",
    "Marsh tits and willow tits are small birds. Tits nest in holes. In winter tits join flocks of goldcrests.",
    "A bitch carries her litter for nine weeks. Keep other bitches away. After whelping the bitch needs more food.",
    "Faggots are meatballs of offal and herbs. Serve the faggots with peas. A faggot was a bundle of sticks, too.",
    "The ignition was retarded by four degrees. Chemicals that retard combustion are sprayed on cloth.",
    "The chinks were stuffed with moss and clay; daylight came through every chink of the hut.",
    "And the great whore that sitteth upon many waters; upon her forehead was a name. The whore of Babylon fell.",
    "Dick Cheney and Moby Dick had nothing to do with cock fights; vermin and parasites are found on dogs and pigs.",
]


def test_the_score_is_the_share_of_hostile_stretches() -> None:
    assert toxicity(CLEAN * 20) == 0
    assert toxicity("") == 0
    scores = [toxicity(CLEAN * 20 + " ".join(HOSTILE[:count])) for count in (1, 3, 6)]
    assert 0 < scores[0] < scores[1] < scores[2] < 0.2
    assert toxicity(" ".join(HOSTILE * 20)) > 0.5
    assert toxicity("fuck " * 10_000) == 1


@pytest.mark.parametrize("sentence", HOSTILE)
def test_hostile_text_is_toxic(sentence: str) -> None:
    assert toxicity(sentence * 3) > TOXIC


@pytest.mark.parametrize("sentence", SUBJECTS)
def test_a_subject_alone_is_not_toxic(sentence: str) -> None:
    assert toxicity(sentence * 10) <= TOXIC


def test_a_word_that_also_names_animals_weighs_beside_others_or_when_it_is_thrown_at_somebody() -> None:
    assert toxicity("The bitch ran. " * 30) == 0
    assert toxicity("You stupid bitch. " * 30) > TOXIC
    beside = toxicity("The bitch ran. " * 30 + "What an asshole. ")
    assert beside > toxicity("The dog ran. " * 30 + "What an asshole. ") > 0


def test_a_report_of_a_word_counts_half_and_one_coarse_word_makes_no_toxic_text() -> None:
    said, reported = toxicity("You asshole!"), toxicity('He called him an "asshole".')
    assert 0 < reported < said <= TOXIC
    assert 0 < toxicity("What the f*ck is that?") < toxicity("What the fuck is that?") <= TOXIC


def test_spelling_does_not_hide_a_word() -> None:
    plain = toxicity("You're a stupid bitch and they're faggots")
    assert plain == toxicity("YOU’RE A STUPID BITCH; and they’re FAGGOTS!!".replace("!!", ""))
    assert plain == toxicity("Ｙｏｕ'ｒｅ a stupid bitch and they're faggots")


def test_encyclopedia_articles_are_not_toxic() -> None:
    texts = [text.text for text in islice(read_wikipedia(0), 80)]
    assert [text[:80] for text in texts if toxicity(text) > TOXIC] == []


@pytest.fixture(scope="module")
def articles() -> list[str]:
    path = os.environ.get("PRIMER_WEB_DATA")
    if not path:
        pytest.skip("PRIMER_WEB_DATA is not set: no real web articles to screen")
    files = [Path(path)] if Path(path).is_file() else sorted(Path(path).glob("*.jsonl"))
    return [json.loads(line)["text"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def test_of_real_articles_few_places_are_masked_and_hardly_any_is_toxic(articles: list[str]) -> None:
    counts: Counter[str] = Counter()
    for text in articles:
        counts.update(mask_personal_data(text).counts)
    assert set(counts) == {"email", "phone"}
    assert 20 <= counts["email"] <= 60
    assert 15 <= counts["phone"] <= 40
    assert sum(toxicity(text) > TOXIC for text in articles) <= 0.005 * len(articles)


def test_the_screen_rarely_takes_a_neutral_sentence_for_a_hostile_one(benchmark_data: Path) -> None:
    rows = (benchmark_data / "toxigen_safety" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    flagged: Counter[str] = Counter()
    for row in map(json.loads, rows):
        flagged[row["label"]] += toxicity(row["text"]) > TOXIC
    assert flagged["neutral"] < 0.005 * len(rows)
    assert flagged["hate"] > 10 * flagged["neutral"]
