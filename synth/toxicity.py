"""How hostile or obscene the language of a text is: a score that can be read off the text.

A text is cut into stretches of 20 words. A stretch weighs as much as the slurs, threats, hostile statements about
groups of people, pornographic and obscene expressions in it, 1 at most; the score is the mean over the stretches (over
12 in a shorter text). 0.05 means one wholly toxic stretch in twenty.

What a text is about does not count, only how it talks: no word for the body, for illness, crime, war or a group of
people weighs anything by itself, so that medicine, law, history and news pass; nor does a coarse word that also names
birds, dogs or dishes. The reverse is the score's limit:
hostility in polite words is not seen (docs/screens.md has the numbers).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# A text that scores higher counts as toxic in the report.
TOXIC = 0.05

_STRETCH = 20  # words
_FEWEST = 12  # stretches of a text, at least: one coarse word makes no toxic text, however short

# Single words by weight: 1 for what nobody would print, 0.5 for coarse talk. Mild oaths weigh nothing.
_WEIGHTS = {
    # slurs
    1.0: "nigger niggers sandnigger kike kikes wetback wetbacks raghead ragheads towelhead towelheads faggot faggots"
    " faggotry jigaboo jigaboos gook gooks zipperhead zipperheads beaner beaners muzzie muzzies mudslime mudslimes kys"
    " subhumans",
    0.7: "spic spics chink chinks tranny trannies paki pakis fags faggy retard retards motherfucker motherfuckers"
    " motherfucking cunt cunts cocksucker cocksuckers nigga niggas libtard libtards feminazi feminazis shemale shemales"
    # pornography
    " cumshot cumshots creampie creampies blowjob blowjobs handjob handjobs deepthroat gangbang gangbangs"
    " bukkake milf milfs upskirt",
    # obscenity and abuse
    0.5: "fuck fucks fucked fucker fuckers fucking fuckin fuckwit fuckwits fuckhead fuckheads clusterfuck mindfuck twat"
    " twats wanker wankers dickhead dickheads asshat asshats pussy pussies dildo dildos tits titties camgirl"
    " camgirls hentai",
    0.35: "asshole assholes arsehole arseholes bitch bitches whore whores slut sluts slutty shithead shitheads shithole"
    " dipshit dumbass dumbasses douchebag douchebags retarded jackass boner boners",
    0.2: "shit shits shitty shitting bullshit horseshit boobs cuck cucks",
}
_WORDS = {word: weight for weight, words in _WEIGHTS.items() for word in words.split()}

# Birds, dogs, dishes, gaps in walls, delayed sparks and the woman of Babylon, too: such a word weighs something only
# beside another expression, which is none of its own family, or if it is thrown at somebody.
_FAMILIES = (
    *("tits titties", "bitch bitches", "whore whores", "faggot faggots fags", "chink chinks", "pussy pussies"),
    *("retard retards retarded", "tranny trannies", "jackass"),
)
_FAMILY = {word: family for family in _FAMILIES for word in family.split()}
_AIMED = frozenset(
    {"you", "youre", "fucking", "stupid", "dumb", "filthy", "ugly", "hate", "hates", "disgusting", "worthless"}
)

# With letters hidden by stars: f*ck, s**t, b*tch, c**t, n****r, a**hole.
_STARRED = re.compile(
    r"(?:mother)?(?:fu?\*{1,4}c?k|f\*{2,4})(?:ing|in|ed|er|ers|s)?|f\*{3}|s(?:\*{2,3}|h\*)t(?:ty)?|b\*{1,4}t?c?h(?:es)?"
    r"|c\*{1,3}n?ts?|n(?:\*|i\*)\*{0,3}g{0,2}(?:er|ers|a|as)|a\*{2,3}(?:hole|holes)"
)
_STARRED_WEIGHT = 0.25

# The same words at their harmless work; the first of the phrase or the one after it is the word.
_HARMLESS = re.compile(
    r"\b(?:pussy (?:riot|willows?|cats?|foot\w*)|chinks? (?:in|of)|spic and span|super tits"
    r"|(?:retards?|retarded) (?:the|growth|by)|(?:flame|fire|spark) retards?|(?:great|blue|coal|long tailed) tits)\b"
)

# Named or reported, not said: one of these shortly before an expression halves its weight.
_REPORTING = frozenset(
    {"word", "words", "term", "terms", "slur", "slurs", "epithet", "epithets", "phrase", "label", "labels", "labelled"}
    | {"labeled", "call", "called", "calling", "named", "say", "says", "said", "saying", "yelled", "yelling", "shouted"}
    | {"shouting", "screamed", "wrote", "tweeted", "read", "reading", "heard", "chanted", "chanting"}
)
_REPORTED_WITHIN = 8  # words

_GROUP = (
    r"(?:(?:black|white|brown|asian|african|chinese|mexican|arab|muslim|jewish|gay|trans|disabled|foreign|old|fat|these"
    r"|those|you)(?: \w+)? (?:people|men|women|folks?|kids|immigrants)|you people|blacks|whites|jews|muslims|arabs"
    r"|mexicans|africans|asians|indians|pakistanis|latinos|hispanics|gypsies|immigrants|migrants|illegals|refugees"
    r"|foreigners|women|females|girls|men|gays|homosexuals|queers|lesbians|transsexuals|transgenders|feminists"
    r"|christians|atheists|the disabled|cripples)"
)
_SLIGHTS = (
    "lazy stupid dumb dirty filthy disgusting inferior subhuman animals apes monkeys vermin parasites scum savages"
    " criminals rapists terrorists thieves thugs leeches pigs dogs trash garbage worthless useless evil perverts"
    " pedophiles freaks abominations unnatural invaders liars greedy barbaric uncivilized uncivilised primitive unclean"
    " weak whores"
)
_PLAGUES = "burden menace plague disease cancer curse virus"
_SLIGHT = rf"(?:{_SLIGHTS.replace(' ', '|')}|an? (?:\w+ )?(?:{_PLAGUES.replace(' ', '|')})|(?:less|not) human)"
_DOOMS = "deported shot killed hanged gassed exterminated eradicated sterilized sterilised beaten"
_ABUSE = (
    "idiot idiots moron morons imbecile imbeciles cretin cretins scum scumbag scumbags pig pigs trash loser losers cow"
    " freak freaks bastard bastards"
)

# Signs, pattern, weight. A pattern is looked for only in texts with a word out of each of its sets of signs
# ("a b + c d": a or b, and c or d). Texts come as lower-case words without apostrophes, a space between.
_EXPRESSIONS = tuple(
    (tuple(frozenset(part.split()) for part in signs.split("+")), re.compile(rf"\b(?:{pattern})\b"), weight)
    for signs, pattern, weight in (
        # Statements about a group as a whole.
        (
            f"are + {_SLIGHTS} {_PLAGUES} human",
            rf"{_GROUP}(?: \w+)? are (?:(?:all|just|so|too|such|always|naturally|nothing but|nothing more than|a bunch"
            rf" of|like|fucking|mostly|really|basically|inherently|genetically|born) ){{0,3}}{_SLIGHT}",
            1.0,
        ),
        (
            f"should must deserve need ought + {_DOOMS} wiped locked die burn kitchen place back",
            rf"{_GROUP} (?:all )?(?:should|must|deserve to|need to|ought to) (?:all |just )?(?:be (?:wiped out|locked"
            rf" up|{_DOOMS.replace(' ', '|')})|die|burn|stay in the kitchen|know their place"
            r"|go back to (?:where|their|africa|mexico|asia))",
            1.0,
        ),
        (
            "belong trusted welcome breed",
            rf"{_GROUP} (?:(?:dont|do not) belong (?:in|here)|(?:cant|cannot|can never) be trusted|(?:are not|arent)"
            r" welcome|breed like)",
            1.0,
        ),
        (
            "hate kill gas exterminate deport shoot hang death",
            r"(?:i (?:really |fucking |just |so )?hate (?:all |the |these |those )?|death to (?:all |the ){0,2}"
            rf"|(?:kill|gas|exterminate|deport|shoot|hang) (?:all(?: the| of the)?|every|these|those|the) ){_GROUP}",
            1.0,
        ),
        ("back", r"go back to (?:your (?:own )?country|where you (?:came|come) from)", 0.7),
        # Threats, and wishes of that kind.
        ("yourself yourselves", r"(?:kill|hang|shoot) yoursel(?:f|ves)", 0.7),
        (
            "kill rape murder stab beat + ill im will am gonna wanna want",
            r"i(?:ll| will| am going to|m going to|m gonna| wanna| want to) (?:fucking )?(?:kill|rape|murder|stab|beat)"
            r" (?:you|your|her|them all)",
            0.7,
        ),
        (
            "hope + die dies raped cancer shot aids rot rots burn burns",
            r"hope (?:you|they|she|he) (?:all )?(?:dies?|gets? (?:raped|cancer|shot|aids)|rots?|burns?)",
            1.0,
        ),
        (
            "raped lynched gassed exterminated + should deserve deserves deserved need needs ought",
            r"(?:should|deserves? to|deserved to|needs? to|ought to) (?:all )?(?:be|get) (?:raped|lynched|gassed"
            r"|exterminated)",
            1.0,
        ),
        # Abuse of the person spoken to.
        (
            f"you youre u + {_ABUSE} piece",
            r"(?:you|youre|u)(?: are| r)?(?: all)?(?: (?:such|just|nothing but|a|an|fucking|stupid|dumb|filthy|pathetic"
            r"|worthless|ugly|fat|little|goddamn|damn|dirty|useless|disgusting|lying|bloody)){1,4}"
            rf" (?:{_ABUSE.replace(' ', '|')}|piece of (?:shit|trash|garbage))",
            0.7,
        ),
        # Pornography in words that are harmless alone.
        (
            "cock dick ass clit cum anal teens legal jerk jerking babes chicks sluts porn nude horny",
            r"(?:his|my|your|hard|huge|big|thick|throbbing) (?:(?:hard|huge|big|thick|fat|erect|throbbing) )?(?:cock"
            r"|dick)|suck(?:s|ed|ing)? (?:his|my|a|your) (?:cock|dick)|lick(?:s|ed|ing)? (?:her|my|his|your) (?:ass"
            r"|clit)|anal (?:fuck\w*|porn|creampie|gangbang|fisting|action)|barely legal|jerk(?:ing)? off"
            r"|(?:naked|nude|hot|horny) (?:teens|milfs?|babes|sluts|chicks)|(?:free|hot) (?:porn|nude)"
            r" (?:videos?|pics?)|(?:im|so|feeling) horny"
            r"|cum (?:on|in|all over) (?:her|my|his|your)|swallow(?:s|ed|ing)? (?:his |my |the )?cum",
            0.7,
        ),
    )
)

_WORD = re.compile(r"[^\W_][\w*]*|[.!?]")


def toxicity(text: str) -> float:
    """Share of a text's stretches of 20 words that are hostile, obscene or pornographic, each by its weight.

    Args:
        text: A text; the expressions known are English.

    Returns:
        0 (none) to 1 (all of a text of 240 words or more). Above `TOXIC` a text counts as toxic.
    """
    words = _words(text)
    stretches: dict[int, float] = {}
    for place, weight in _hits(words):
        stretches[place // _STRETCH] = stretches.get(place // _STRETCH, 0.0) + weight
    return sum(min(1.0, weight) for weight in stretches.values()) / max(_FEWEST, -(-len(words) // _STRETCH))


def _words(text: str) -> list[str]:
    """Words in lower case without apostrophes, and ends of sentences, which keep expressions inside one."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).replace("’", "").replace("‘", "")
    return _WORD.findall(text.lower().replace("'", ""))


def _hits(words: list[str]) -> Iterator[tuple[int, float]]:
    """Place and weight of every expression in a text."""
    present = set(words)
    searched = [
        (pattern, weight)
        for signs, pattern, weight in _EXPRESSIONS
        if not any(sign.isdisjoint(present) for sign in signs)
    ]
    starred = {word for word in present if "*" in word and _STARRED.fullmatch(word)}
    if not searched and not starred and _WORDS.keys().isdisjoint(present):
        return
    joined = " ".join(words)
    found = [(place, _WORDS[word]) for place, word in enumerate(words) if word in _WORDS]
    found += [(place, _STARRED_WEIGHT) for place, word in enumerate(words) if word in starred]
    for pattern, weight in searched:
        found += [(place, weight) for place in _places(pattern, joined)]
    harmless = set(_places(_HARMLESS, joined)) if found else set()
    meant = [(place, weight) for place, weight in found if place not in harmless and place - 1 not in harmless]
    kinds = {_FAMILY.get(words[place], "") for place, _ in meant}
    for place, weight in meant:
        if kinds == {""} or len(kinds) > 1 or not _AIMED.isdisjoint(words[max(0, place - 2) : place]):
            reported = not _REPORTING.isdisjoint(words[max(0, place - _REPORTED_WITHIN) : place])
            yield place, weight / 2 if reported else weight


def _places(pattern: re.Pattern[str], joined: str) -> Iterator[int]:
    """Numbers of the words that matches begin with."""
    place, counted = 0, 0
    for match in pattern.finditer(joined):
        place += joined.count(" ", counted, match.start())
        counted = match.start()
        yield place
