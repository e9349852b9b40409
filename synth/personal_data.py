"""Personal data in a text, masked: what reaches a person or opens a door.

What is found is replaced by one harmless value a kind. All are values that standards keep free for examples, so they
reach nobody, the sentence and the program around them still read as they did, and a model that learns to write an
address learns to write one of nobody. (A mark such as <EMAIL> would be learnt just as well, and then be written into
textbooks; FineWeb, arXiv 2406.17557, writes example addresses too, and random addresses of machines.)

Values kept free for examples are therefore left as they are, which also makes masking twice the same as once.
Precision is worth more than recall here: a wrong match spoils training text. Names and postal addresses stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

EMAIL = "email@example.com"  # RFC 2606, section 3
PHONE = "202-555-0100"  # 555-0100 to 555-0199 are for fiction (North American Numbering Plan)
CARD = "0000000000000000"  # no issuer begins with 0; a whole number in a program stays one
IPV4 = "192.0.2.1"  # RFC 5737
IPV6 = "2001:db8::1"  # RFC 3849
KEY = "YOUR_SECRET_KEY"
IBAN = "XX00 0000 0000 0000 0000"  # no country XX
SOCIAL_SECURITY = "000-00-0000"  # area 000 is never assigned

# Every quantifier is bounded or cannot match where its neighbour can: time stays linear, whatever the text. Patterns
# begin with a character, and look behind after it: so the search skips to that character.

# PEM (RFC 7468): the body of a private key.
_KEY_BLOCK = re.compile(
    r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----(?P<body>(?:[A-Za-z0-9+/=\s\\,:\"']|-(?!-)){40,8000}?)-----END "
)
# What the services say their own keys look like.
_KEY_SHAPE = re.compile(
    r"(?<![\w-])(?:sk-(?=[\w-]{0,40}\d)(?=[\w-]{0,40}[A-Z])[\w-]{20,200}|[sr]k_live_\w{16,120}|whsec_\w{24,80}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255}|glpat-[\w-]{20,64}"
    r"|xox[abeoprs]-(?=[\w-]{0,40}\d)[\w-]{10,250}|AIza[\w-]{35}|ya29\.[\w-]{30,300}|hf_[A-Za-z0-9]{30,60}"
    r"|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{40,300}|SG\.[\w-]{16,32}\.[\w-]{30,60}|\d{8,10}:AA[\w-]{33}"
    r"|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{20,1000}"
    r"|(?i:(?<=secret_access_key=)|(?<=secret_access_key = ))[\w/+]{40})(?![\w-])"
)
_KEY_SIGNS = (
    *("sk-", "k_live_", "whsec_", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("xox", "AIza", "ya29.", "hf_", "npm_", "pypi-", "SG.", ":AA", "eyJ", "access_key", "ACCESS_KEY"),
)
_LOGIN = re.compile(r"(?P<before>://[\w.%+-]{1,64}:)(?P<value>[^\s:/@\"'<>{}$%*]{3,80})(?=@[\w-]{1,63}[.:/])")
_LOGIN_BEFORE = re.compile(r"://[\w.%+-]{1,64}:$")
_PASSWORD = re.compile(
    r"(?P<before>(?:password|passwd|secret|(?:api|access|secret|private|auth|account)[_-]?key"
    r"|(?:api|access|auth|bearer|refresh|bot)[_-]?token)[\"']?\s{0,3}[=:]\s{0,3}[\"'])"
    r"(?P<value>[!#-&(-\[\]-~]{8,200})(?=[\"'])",
    re.IGNORECASE,
)
_NOT_A_KEY = re.compile(
    r"your|example|change|placeholder|redacted|dummy|fake|sample|x{4}|\*{3}|\.{3}|[<>{}$%()]"
    r"|^(?:pass(?:word|wd)?|pwd?|secret|guest|user|test|root|admin|postgres)$",
    re.IGNORECASE,
)

# Two-letter endings are countries; of the others those that addresses in text have. What else stands there in a
# program is an attribute: x@w.T, x@w.shape.
_ENDING = (
    r"(?:[a-z]{2}|[A-Z]{2}|(?i:com|org|net|edu|gov|mil|int|info|biz|name|pro|aero|coop|museum|jobs|mobi|travel|email"
    r"|online|site|tech|store|shop|blog|news|media|agency|cloud|club|live|life|world|today|global|group|team|work|works"
    r"|studio|design|digital|solutions|company|support|center|academy|school|university|institute|foundation|health"
    r"|church|law|legal|app|dev|xyz|top|space|website|earth|london|berlin|nyc|wien|paris|scot|cat|asia|eco|art|press"
    r"|games))"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# Neither the letter of \n nor that of %s belongs to an address.
_EMAIL = re.compile(
    r"(?:(?<![\w.%+@\\-])|(?<=\\[nrt]|\s-|\.\.)|(?<=^-))\w[\w+-]{0,63}+(?:\.[\w+-]{1,64}+){0,6}+"
    rf"@(?P<host>(?:{_LABEL}\.){{1,6}}{_ENDING})(?![\w@(\[-]|\.\w)"
)
# name [at] host [dot] com; name at host dot com
_EMAIL_SPELT = re.compile(
    r"(?<![\w.%+@\\-])[^\W\d_][\w.+-]{0,63}+(?:\s?(?:\((?i:at)\)|\[(?i:at)\])\s?"
    rf"(?:[A-Za-z0-9-]{{1,63}}(?:\.|\s?(?:\((?i:dot)\)|\[(?i:dot)\])\s?|\s(?i:dot)\s)){{1,4}}{_ENDING}(?![\w-])"
    r"| (?:at|AT) [A-Za-z0-9-]{2,63} (?:dot|DOT) (?:com|org|net|edu|gov|io|COM|ORG)\b)"
)
# Without brackets most of these are shops: "bought it at amazon dot com".
_A_NAME = re.compile(r"[^\W\d_]+[\d._]\w")
_WRITE = re.compile(r"\b(?:e-?mails?|mail|contact|write|reach)\b[^\n;.!?]{0,20}$", re.IGNORECASE)
_NOT_A_NAME = re.compile(
    r"(?:us|me|him|her|them|it|you|here|page|site|website|online|address|directly|now|out)$", re.IGNORECASE
)
# RFC 2606: names that belong to nobody. `git` is the login of every repository's address.
_NOBODYS = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|local)$", re.IGNORECASE)

# Characters of an account number, by country (SWIFT, IBAN registry).
_IBAN_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24"
    " FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32"
    " LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24"
    " SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
_IBAN_LENGTHS = {country[:2]: int(country[2:]) for country in _IBAN_COUNTRIES.split()}
_IBAN = re.compile(r"[A-Z](?<![\w-].)[A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![\w-])")

# 13 to 19 digits (ISO/IEC 7812), in one piece or in the groups that are printed on cards.
_CARD = re.compile(
    r"[2-6](?<![\w.,/=#&%$€£+-].)(?<!\d .)"
    r"(?:\d{3}([ -])\d{4}\1\d{4}\1\d{4}|\d{3}([ -])\d{6}\2\d{4,5}|\d{12,18})(?![\w/%-]|[.,]\d| \d)"
)
# Visa, Mastercard (two ranges), American Express, Discover, Diners Club, JCB.
_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})$|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}$|3[47]\d{13}$"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}$|3(?:0[0-5]|[68]\d)\d{11}$|35(?:2[89]|[3-8]\d)\d{12}$"
)

# One in seventy numbers of 16 digits looks like a card: in one piece, a word must say that it is one.
_PAYMENT = re.compile(
    r"\b(?i:cards?|visa|mastercard|amex|american express|discover|diners|jcb|credit|debit|cc|ccn|pan|payment|paid|pay)"
    r"[^\n]{0,40}$"
)

# Areas 000, 666 and 900 to 999 are never assigned (US Social Security Administration).
_SOCIAL_SECURITY = re.compile(
    r"[0-8](?<![\w.,/=#-].)(?<!0(?=00))(?<!6(?=66))\d\d-(?!00)\d\d-(?!0000)\d{4}(?![\w/-]|[.,]\d)"
)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(
    rf"[1-9](?<![\w.].)(?<![A-Za-z_]-.)(?<![A-Za-z0-9]/.)\d{{0,2}}(?:\.{_OCTET}){{3}}(?![\w]|\.\w|-[A-Za-z])"
)
# Roots of object identifiers (ITU-T X.660): 1.2.840 and 1.3.6.1 of organisations, 2.5.29 of certificates.
_OBJECT_IDENTIFIER = re.compile(r"(?:1\.[0-3]?\d|2\.5)\.")
# What comes before numbers that only look like addresses.
_NUMBERED = re.compile(
    r"(?:\bv|\bver|version|versions|release|build|firmware|driver|patch|update|revision|kernel|section|sections|chapter"
    r"|clause|article|paragraph|figure|table|rule|§|oid|object identifier)[\s.:=(\"']{0,3}$",
    re.IGNORECASE,
)
# Global unicast addresses alone (RFC 4291, section 2.4): 2000::/3.
_IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])")

_TIME = re.compile(r"(?:19|20)\d\d(?::\d\d)+$")

# The calling codes of countries (ITU-T E.164).
_CALLING = (
    r"(?:1(?=\D{0,2}[2-9])|7|2[07]|21[12368]|2[2-69]\d|3[0-469]|3[578]\d|4[013-9]|42[013]|5[1-8]|5[09]\d|6[0-6]"
    r"|6[789]\d|8[1246]|8[0578]\d|9[0-58]|9[679]\d)"
)
_PHONE = re.compile(
    r"[(+0-9](?<![\w.+/=#$-].)(?:"
    # +44 20 7946 1234, 0049 30 1234567, +12127365000
    rf"(?:(?<=\+)|(?<!\d .)(?<=0)0 ?){_CALLING}[ .-]?(?:\(0?\d{{1,4}}\)[ .-]?)?\d{{1,5}}(?:[ ./-]\d{{2,8}}){{1,4}}"
    rf"|(?<!= .)(?<=\+)(?=\d{{10,15}}(?!\d)){_CALLING}\d{{7,13}}"
    # (212) 736-5000, 212-736-5000, 212.736.5000; with a 1 before it, also 1 212 736 5000
    r"|(?:(?<=\+)1[ .-]|(?<=1)[ .-])(?:\([2-9]\d\d\)|[2-9]\d\d)[ .-]?[2-9]\d\d[ .-]\d{4}"
    r"|(?:(?<=\()[2-9]\d\d\)[ .-]?|(?<=[2-9])\d\d(?=[.-])(?=(.)\d{3}\1))[.-]?[2-9]\d\d[ .-]\d{4}"
    # 020 7946 1234, (02) 9876 5432, 0412 345 678, 089/123 456, 01 42 68 53 00
    r"|(?<!\d .)(?:(?<=\()0[1-9]\d{0,3}\) ?|(?<=0)[1-9]\d{0,4}(?: / |[ /-]))\d{3,4}[ -]?\d{3,5}(?! \d)"
    r"|(?<!\d .)(?<=0)[1-9]([ .-])\d\d(?:\2\d\d){3}(?! \d)"
    r")(?![\w/-]|[.,:]\d)"
)
# Any other number that is said to be one.
_PHONE_SAID = re.compile(
    r"\b(?P<before>(?i:phone|telephone|tel|ph|fax|mobile|cellphone|(?:my|your|his|her) cell|cell(?=:)|call(?! n)|dial"
    r"|text(?=:| us\b| me\b| him\b| her\b)|whatsapp|hotline|reached at"
    r"|reach (?:me|us|him|her|them) (?:at|on))\b"
    r"(?:\s(?i:number|no\.|us|me|him|her|them|now|on|at|is)){0,3}[\s.:]{1,3})"
    r"(?P<value>\(?\d[\d().]{0,5}(?:[ .()-]{0,2}\d{2,5}){1,5})(?![\w/,%-]|\.\d| \d)"
)
# What is in three lines of every table, unless a word says that it is a telephone number: 0045 0046 0047,
# 05 12 23 34 45, 0600 1200 1800, 01/1999-12345, +12 345 678.
_DOUBTFUL = re.compile(
    r"00(?!.{1,9}\(0)|0\d([ .-])\d\d(?:\1\d\d){3}$|0\d{3}([ -])\d{4}\2\d{4}$|0\d/(?:19|20)\d\d"
    r"|\+?[1-9]\d?(?: \d{3}){2}$"
)
_TELEPHONE = re.compile(
    r"\b(?:t[eé]l(?:[eé]?[fp]\w{2,8})?|(?:cell)?phones?|fax|fon|mobile?|m[oó]vil|handy|cell|call|dial|ring|whatsapp"
    r"|hotline|contact)\b[^\n]{0,25}$",
    re.IGNORECASE,
)
# Numbers of things.
_CATALOGUED = re.compile(
    r"\b(?:isbn|issn|upc|ean|sku|pmid|oclc|patent|serial|part|lot|order|item|model|invoice)\b"
    r"(?:\s(?:no|number|us|id)\b)?[\s.:#]{0,3}$",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:(?:1[5-9]|20)\d\d([-.])[01]?\d\1[0-3]?\d|[0-3]?\d([-.])[0-3]?\d\2(?:1[5-9]|20)\d\d)(?!\d)")
_AMOUNT = re.compile(r"[1-9]\d{0,2}(?: \d{3})* 000$|[1-9]\d?(?: \d{3}){2,}$")  # 1 800 000 000, 12 345 678
_FICTION = re.compile(r"55501\d\d$")
_YEARS = re.compile(r"(?<!\d)(?:1[5-9]|20)\d\d\D{1,3}(?:1[5-9]|20)\d\d$")
_DIGITS_SAID = 7  # of a local number; where nothing says that it is one, more are asked for
_BEFORE = 70  # characters
# Typesetters' spaces and hyphens, between groups of digits as good as any; one character each, so places stay.
_SPACES, _HYPHENS = "\u00a0\u2007\u2009\u202f", "\u2010\u2011\u2012\u2013"
_PLAIN = (*((space, " ") for space in _SPACES), *((hyphen, "-") for hyphen in _HYPHENS))
_OF_DIGITS = frozenset({"phone", "card", "iban", "social_security"})
# What is written for one match may complete another beside it; most texts need one round, few three.
_MOST_ROUNDS = 8


@dataclass(frozen=True)
class Masked:
    """A text without personal data.

    Attributes:
        text: The text, masked.
        counts: Places that were masked, by kind; kinds that were not met are absent.
    """

    text: str
    counts: dict[str, int]


def mask_personal_data(text: str) -> Masked:
    """Replace e-mail addresses, telephone, card and account numbers, addresses of machines, and keys.

    Works alike on prose and on programs, in time linear in the length; masking what is masked changes nothing.

    Args:
        text: A text in any language.

    Returns:
        The masked text and the count by kind: `email`, `phone`, `card`, `ip`, `key`, `iban`, `social_security`.
    """
    counts: Counter[str] = Counter()
    for _ in range(_MOST_ROUNDS):
        before = text
        for rule in _RULES:
            if any(sign in text for sign in rule.signs):
                text = _apply(rule, text, counts)
        if text == before:
            break
    return Masked(text, dict(counts))


@dataclass(frozen=True)
class _Rule:
    """One way that a kind is written.

    Attributes:
        signs: One of them is in every text that the pattern matches.
        value: What to write for a match; None if it is not what it looks like.
    """

    kind: str
    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    value: Callable[[re.Match[str]], str | None]


def _apply(rule: _Rule, text: str, counts: Counter[str]) -> str:
    searched = text
    if rule.kind in _OF_DIGITS and not text.isascii():
        for written, plain in _PLAIN:  # several times as fast as str.translate
            searched = searched.replace(written, plain)
    pieces, at = [], 0
    for match in rule.pattern.finditer(searched):
        value = rule.value(match)
        if value is not None and value != match[0]:
            counts[rule.kind] += 1
            pieces += [text[at : match.start()], value]
            at = match.end()
    return "".join([*pieces, text[at:]])


def _key_block(match: re.Match[str]) -> str | None:
    """The armour, and the white space, quotes and escapes beside it: in a program the block is a string."""
    body = match["body"]
    if KEY in body:
        return None
    inner = re.sub(r"^(?:\s|\\n|[\"'])+|(?:\s|\\n|[\"'])+$", "", body)
    return match[0].replace(inner, KEY)


def _key_shape(match: re.Match[str]) -> str | None:
    return None if _NOT_A_KEY.search(match[0]) else KEY


def _secret(match: re.Match[str]) -> str | None:
    return None if _NOT_A_KEY.search(match["value"]) or match["value"] == KEY else match["before"] + KEY


def _password(match: re.Match[str]) -> str | None:
    """Letters and digits mixed, as in no word and no number."""
    value = match["value"]
    digits = sum(map(str.isdigit, value))
    mixed = digits > 1 or (digits == 1 and value != value.lower())
    return _secret(match) if mixed and any(map(str.isalpha, value)) else None


def _email(match: re.Match[str]) -> str | None:
    if _NOBODYS.search(match["host"]) or match[0].startswith("git@"):
        return None
    return None if _follows(_LOGIN_BEFORE, match) else EMAIL


def _email_spelt(match: re.Match[str]) -> str | None:
    if any(bracket in match[0] for bracket in "(["):
        return EMAIL
    name = match[0].split(" ")[0]
    said = _follows(_WRITE, match) and not _NOT_A_NAME.match(name)
    return EMAIL if said or _A_NAME.match(name) else None


def _iban(match: re.Match[str]) -> str | None:
    """ISO 13616: with its head at its end and letters as 10 to 35, the number leaves 1 when divided by 97."""
    groups = match[0].split(" ")
    for end in range(1, len(groups) + 1):  # what follows may be a word in capitals
        plain = "".join(groups[:end])
        if len(plain) == _IBAN_LENGTHS.get(plain[:2]):
            number = int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4]))
            return " ".join([IBAN, *groups[end:]]) if number % 97 == 1 else None
    return None


def _card(match: re.Match[str]) -> str | None:
    digits = _digits(match[0])
    if not _ISSUER.match(digits) or not _luhn(digits) or len(set(digits)) < 3:
        return None
    return CARD if digits != match[0] or _follows(_PAYMENT, match) else None


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, the sum of all digits a multiple of ten."""
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def _ipv4(match: re.Match[str]) -> str | None:
    """As FineWeb, public ones alone: private ones reach nobody from outside, and network lessons are made of them."""
    large = sum(int(part) >= 20 for part in match[0].split("."))
    if large < 2 or _OBJECT_IDENTIFIER.match(match[0]) or not _of_one_machine(match[0]):
        return None  # small numbers are sections and versions (8.2.4.45); of all addresses 0.2% look like that
    return None if _follows(_NUMBERED, match) else IPV4


def _ipv6(match: re.Match[str]) -> str | None:
    return IPV6 if _of_one_machine(match[0]) and not _TIME.match(match[0]) else None


def _of_one_machine(written: str) -> bool:
    try:
        address = ip_address(written)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


def _phone(match: re.Match[str]) -> str | None:
    if len(_digits(match[0])) <= _DIGITS_SAID or not _a_number(match[0]) or _follows(_CATALOGUED, match):
        return None
    return None if _DOUBTFUL.match(match[0]) and not _follows(_TELEPHONE, match) else PHONE


def _phone_said(match: re.Match[str]) -> str | None:
    value = match["value"]
    return None if _AMOUNT.match(value) or not _a_number(value) else match["before"] + PHONE


def _a_number(written: str) -> bool:
    """E.164 allows 15 digits; those of fiction and of the other kinds' values are nobody's."""
    digits = _digits(written)
    return (
        _DIGITS_SAID <= len(digits) <= 15
        and not _FICTION.search(digits)
        and bool(digits.strip("0"))
        and not _YEARS.search(written)
        and not _DATE.match(written)
    )


def _follows(before: re.Pattern[str], match: re.Match[str]) -> bool:
    """Whether a pattern that ends with `$` stands right before a match."""
    return before.search(match.string[max(0, match.start() - _BEFORE) : match.start()]) is not None


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


# In this order: a password before a host is no address, a card number no telephone number.
_RULES = (
    _Rule("key", ("PRIVATE KEY",), _KEY_BLOCK, _key_block),
    _Rule("key", _KEY_SIGNS, _KEY_SHAPE, _key_shape),
    _Rule("key", ("://",), _LOGIN, _secret),
    _Rule("key", ('="', "='", '= "', "= '", ': "', ": '", ':"', ":'"), _PASSWORD, _password),
    _Rule("email", ("@",), _EMAIL, _email),
    _Rule("email", (" dot ", " DOT ", "(at)", "[at]", "(AT)", "[AT]"), _EMAIL_SPELT, _email_spelt),
    _Rule("iban", ("",), _IBAN, _iban),
    _Rule("card", ("",), _CARD, _card),
    _Rule("social_security", ("-", *_HYPHENS), _SOCIAL_SECURITY, lambda _: SOCIAL_SECURITY),
    _Rule("ip", (".",), _IPV4, _ipv4),
    _Rule("ip", (":",), _IPV6, _ipv6),
    _Rule("phone", ("",), _PHONE, _phone),
    _Rule("phone", ("",), _PHONE_SAID, _phone_said),
)
