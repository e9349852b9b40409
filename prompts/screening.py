"""Passages that must not be spent a token on: with personal data, unfit for a school, for a machine, of a benchmark."""

from __future__ import annotations

import re
from collections.abc import Sequence

from primer.contamination import BenchmarkText
from prompts.passages import Snippet

# What identifies or reaches a person, or opens a door: addresses for mail and machines, telephone, card and account
# numbers, keys. Better a harmless number too many than one that reaches somebody.
_PERSONAL = re.compile(
    r"[\w.+-]+\s?(?:@|\(at\)|\[at\])\s?[\w-]+(?:\.|\s?\(?dot\)?\s?)\w{2,}|\bat \w+ dot \w{2,4}\b"
    r"|(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])"
    r"|(?:\+|\b00)\d{1,3}[ .()/-]*(?:\d[ .()/-]*){6,12}\d"
    r"|\(?\b\d{3}\)?[ .-]\d{3}[ .-]\d{4}\b|\b0\d{2,4}[ -]\d{3,4}[ -]\d{3,4}\b"
    r"|\b(?:tel|phone|call|fax|mobile)\b[^.\n]{0,12}\d[\d ().-]{5,}\d"
    r"|\b\d{3}-\d{2}-\d{4}\b"
    r"|\b(?:\d[ -]?){13,19}\b"
    r"|\b(?-i:[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7})\b"
    r"|\b(?:sk|pk|ghp|gho|xox[abp]|AKIA|AIza|hf)[-_]?[A-Za-z0-9_-]{16,}"
    r"|\b(?=\w*\d)(?=\w*[A-Za-z])\w{28,}\b"
    r"|\b\d{1,5} (?-i:(?:[A-Z]\w+ ){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Drive|Boulevard|Blvd|Court|Way)\b)"
    r"|\b(?:lives?|living|resides?) at \d|\bborn on \d",
    re.IGNORECASE,
)

# Words that a school text does without, whatever the sentence says with them.
_UNFIT = re.compile(
    r"\b(?:sex\w*|rap(?:e|es|ed|ist|ists|ing)|porn\w*|nud(?:e|es|ity)|naked|genital\w*|penis\w*|vagina\w*|breasts?"
    r"|orgasm\w*|masturbat\w*|erotic\w*|fetish\w*|prostitut\w*|brothels?|pimps?|molest\w*|incest\w*|p(?:a)?edophil\w*"
    r"|suicid\w*|self-harm\w*|behead\w*|decapitat\w*|dismember\w*|mutilat\w*|tortur\w*|massacre\w*|genocid\w*"
    r"|lynch\w*|slaughter\w*|murder\w*|strangl\w*|gore|gory|holocaust|gas chambers?|execut(?:ed|ions?)|corpses?"
    r"|terroris\w*|jihad\w*|nazis?|neo-?nazis?|hitler|ku klux klan|kkk|white power|ethnic cleansing"
    r"|heroin|cocaine|meth|methamphetamine\w*|opioids?|fentanyl"
    r"|fuck\w*|motherfuck\w*|shit\w*|bullshit|bitch\w*|whor(?:e|es|ing)|sluts?|cunts?|dicks?|assholes?|bastards?|damn\w*"
    r"|nigg\w+|fagg\w+|fags?|dykes?|trann(?:y|ies)|retard(?:s|ed)?|spics?|kikes?|chinks?|gooks?|wetbacks?|ragheads?"
    r"|towelheads?|gyps(?:y|ies)|redskins?|injuns?|darkies|negroe?s?|subhuman\w*|vermin|morons?"
    r"|idiots?|deserved? to die)\b",
    re.IGNORECASE,
)

# Groups that people are hated for belonging to. Most hostile sentences hold no word of the list above, and telling
# them from friendly ones takes understanding, so a passage that speaks of such a group is not used at all.
_PEOPLE = (
    r"(?:people|persons?|m[ae]n|wom[ae]n|folks?|guys?|kids?|child(?:ren)?|students?|pupils?|famil(?:y|ies)|fathers?"
    r"|mothers?|parents?|boys?|girls?|workers?|neighbou?rs?|communit(?:y|ies)|cashiers?|drivers?|immigrants?)"
)
_GROUP = re.compile(
    rf"\b(?:blacks|whites|(?:black|white|brown|colou?red|african|asian|chinese|japanese|korean|indian|pakistani|mexican"
    rf"|latin[oax]|hispanic|arab|turkish|polish|middle[ -]eastern|native|indigenous|jewish|muslim|hindu|christian"
    rf"|catholic|gay|trans|queer|deaf|blind|disabled|autistic|poor|homeless|old|elderly|foreign) {_PEOPLE}"
    r"|african.americans?|asians?|mexicans?|latin(?:os?|as?|x)|hispanics?|native americans?|arabs?|muslims?|islam\w*"
    r"|jews?|jewish|jewry|judaism|hindus?|sikhs?|immigrants?|immigration|migrants?|refugees?|foreigners?"
    r"|minorit(?:y|ies)|gays?|lesbians?|bisexuals?|homosexual\w*|transgender\w*|transsexual\w*|lgbt\w*|queers?"
    r"|feminis\w*|disabilit(?:y|ies)|handicap\w*|wheelchairs?|mental(?:ly)? ill\w*|mental(?:ly)? disab\w*"
    r"|down syndrome|racis\w*|racial\w*|antisemiti\w*|anti-semiti\w*|homophob\w*)\b"
    # Of the sexes only what is said of all: a passage may well have a woman in it.
    r"|\b(?:women|men|girls|boys|females|males)(?: who [^.,]{0,50})? (?:are|can|can't|cannot|should|shouldn't|must"
    r"|never|always|only|don't|do not|have no|need to|belong|deserve|tend to|love to|only want)\b",
    re.IGNORECASE,
)

# Words for the machine that reads the passage.
_FOR_A_MACHINE = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^.]{0,30}\b(?:instructions?|prompts?|rules|above|previous|user|said)\b"
    r"|\bfrom now on,? you\b|\boutput (?:only|nothing)\b|\bsay nothing else\b"
    r"|\bsystem prompts?\b|\b(?:as|are|am) an? (?:ai|language model|assistant|chatbot)\b|\blanguage models?\b"
    r"|\bchat ?gpt\b|\b(?:respond|reply|answer) (?:only )?with\b|\byour instructions\b|\bnew instructions?\b",
    re.IGNORECASE,
)


def barred_passages(snippets: Sequence[Snippet], benchmarks: BenchmarkText | None) -> dict[str, str]:
    """The passages that must not be used.

    Args:
        snippets: Passages.
        benchmarks: Texts of which no passage may hold a run of words; None if there are none.

    Returns:
        For the id of each barred passage the reason: `personal_data`, `unfit_words`, `group_of_people`,
        `for_a_machine`, or `benchmark NAME`.
    """
    barred: dict[str, str] = {}
    for snippet in snippets:
        if reason := _reason(snippet.text, benchmarks):
            barred[snippet.id] = reason
    return barred


def _reason(text: str, benchmarks: BenchmarkText | None) -> str | None:
    if _PERSONAL.search(text):
        return "personal_data"
    if _UNFIT.search(text):
        return "unfit_words"
    if _GROUP.search(text):
        return "group_of_people"
    if _FOR_A_MACHINE.search(text):
        return "for_a_machine"
    if benchmarks is not None and (suite := benchmarks.suite_of(text)):
        return f"benchmark {suite}"
    return None
