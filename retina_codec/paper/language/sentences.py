"""Sentences without their last word, in twelve groups, each with the word that should follow.

Written for this package. A group has one or two patterns, which take turns, and twenty rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retina_codec.errors import RetinaCodecError

__all__ = ["GROUPS", "PARTS", "Group", "Sentence", "answer_words", "sentences"]

PARTS = ("chosen", "reported")  # settings are chosen on the first, figures come from the second


@dataclass(frozen=True)
class Sentence:
    """A text, the word that should follow (with its space), its group, and its part."""

    text: str
    answer: str
    group: str
    part: str


@dataclass(frozen=True)
class Group:
    """Patterns with places for the entries of a row; ``also``: other words of the same kind.

    The last entry of a row is the answer where ``answer`` is left out.
    """

    name: str
    patterns: tuple[str, ...]
    rows: tuple[str, ...]  # entries apart by "|"
    answer: str = ""
    also: tuple[str, ...] = ()

    def sentences(self) -> Iterator[Sentence]:
        """Yield the sentences; rows go to the two parts in turn, each with all patterns."""
        for number, row in enumerate(self.rows):
            words = row.split("|")
            pattern = self.patterns[number // 2 % len(self.patterns)]
            answer = self.answer or words[-1]
            yield Sentence(pattern.format(*words), answer, self.name, PARTS[number % 2])


CAPITALS = Group(
    "capital",
    ("The capital of {} is", "In {}, the capital city is called"),
    (
        "France| Paris", "Germany| Berlin", "Italy| Rome", "Spain| Madrid", "Japan| Tokyo",
        "Egypt| Cairo", "Greece| Athens", "Russia| Moscow", "England| London", "Portugal| Lisbon",
        "Austria| Vienna", "Poland| Warsaw", "Peru| Lima", "Cuba| Havana", "Ireland| Dublin",
        "Norway| Oslo", "Hungary| Budapest", "China| Beijing", "Thailand| Bangkok",
        "Sweden| Stockholm",
    ),
)  # fmt: skip

OPPOSITES = Group(
    "opposite",
    ("The opposite of {} is", "It is not {}. On the contrary, it is very"),
    (
        "hot| cold", "cold| hot", "big| small", "small| large", "happy| sad", "sad| happy",
        "fast| slow", "slow| fast", "dark| light", "light| heavy", "wet| dry", "dry| wet",
        "old| young", "young| old", "soft| hard", "hard| soft", "rich| poor", "poor| rich",
        "good| bad", "bad| good",
    ),
)  # fmt: skip

CALENDAR = Group(
    "calendar",
    ("{}, {},", "First comes {}, then {}, and then"),
    (
        "Monday|Tuesday| Wednesday", "Tuesday|Wednesday| Thursday", "Wednesday|Thursday| Friday",
        "Thursday|Friday| Saturday", "Friday|Saturday| Sunday", "Saturday|Sunday| Monday",
        "Sunday|Monday| Tuesday", "January|February| March", "February|March| April",
        "March|April| May", "April|May| June", "May|June| July", "June|July| August",
        "July|August| September", "August|September| October", "September|October| November",
        "October|November| December", "November|December| January", "December|January| February",
        "Monday|Wednesday| Friday",
    ),
)  # fmt: skip

NUMBERS = Group(
    "number",
    ("{}, {},", "Count with me: {}, {},"),
    (
        "one, two|three| four", "two, three|four| five", "three, four|five| six",
        "four, five|six| seven", "five, six|seven| eight", "six, seven|eight| nine",
        "seven, eight|nine| ten", "eight, nine|ten| eleven", "nine, ten|eleven| twelve",
        "ten, eleven|twelve| thirteen", "ten|twenty| thirty", "twenty|thirty| forty",
        "thirty|forty| fifty", "forty|fifty| sixty", "fifty|sixty| seventy",
        "sixty|seventy| eighty", "two|four| six", "three|six| nine", "four|eight| twelve",
        "five|ten| fifteen",
    ),
)  # fmt: skip

PLURALS = Group(
    "plural verb",
    ("The {} near the {}", "The {} that the {} bought"),
    (
        "keys|door", "boats|bridge", "dogs|house", "chairs|window", "books|lamp", "flowers|wall",
        "horses|river", "children|teacher", "letters|lawyer", "plates|cook", "houses|church",
        "trees|road", "coats|doctor", "paintings|king", "shops|station", "birds|lake",
        "machines|farmer", "tools|builder", "tables|stove", "students|gate",
    ),
    answer=" are",
    also=(" were", " have"),
)  # fmt: skip

SINGULARS = Group(
    "singular verb",
    ("The {} near the {}", "The {} that the {} bought"),
    (
        "key|doors", "boat|bridges", "dog|houses", "chair|windows", "book|lamps", "flower|walls",
        "horse|rivers", "child|teachers", "letter|lawyers", "plate|cooks", "house|churches",
        "tree|roads", "coat|doctors", "painting|kings", "shop|stations", "bird|lakes",
        "machine|farmers", "tool|builders", "table|stoves", "student|gates",
    ),
    answer=" is",
    also=(" was", " has"),
)  # fmt: skip

BRACKETS = Group(
    "bracket",
    ("The {} (made of {}", "My {} (the one from {}"),
    (
        "table|old oak", "box|thin metal", "uncle|the north", "friend|Canada", "statue|white stone",
        "bridge|steel", "cousin|London", "dog|the shelter", "ring|pure gold", "roof|red tiles",
        "car|my father", "watch|Switzerland", "shirt|soft cotton", "cup|clay", "boss|New York",
        "guitar|the shop", "door|heavy iron", "doll|blue glass", "teacher|last year",
        "bicycle|my brother",
    ),
    answer=")",
    also=("),", ").", "):", ");"),
)  # fmt: skip

QUOTES = Group(
    "quote",
    ('She smiled and said, "{}', '"{}'),
    (
        "I am so glad to see you here", "Please come in and sit down",
        "We have waited for you all day", "This is the best cake I ever ate",
        "Do you want to go home now", "Where did you leave the car",
        "I do not know what to do", "Let us go to the garden",
        "You should have called me first", "It will rain tomorrow",
        "Look at that big ship", "There is nothing left to eat",
        "My brother will be here soon", "Who told you about the letter",
        "That is very kind of you", "Never do that again",
        "Can you help me with this box", "I have never been so tired",
        "We will meet again in May", "Thank you for your help",
    ),
    answer='."',
    also=(',"', '!"', '?"', '"'),
)  # fmt: skip

QUESTIONS = Group(
    "question",
    ("{}", "He turned around and asked: {}"),
    (
        "Where is the nearest train station", "How old is your little sister",
        "What is the name of your dog", "Why are you so late today",
        "Who is the president of France", "When does the next bus leave",
        "How much does this ticket cost", "Can you tell me what time it is",
        "Do you want a cup of tea", "Is there a bank near here",
        "What did you eat for breakfast", "Where did you put my glasses",
        "Have you ever been to Italy", "Did you see the movie last night",
        "Why is the sky blue", "Which of these two do you like better",
        "Are you ready to go home", "How do you spell your last name",
        "Could you please open the window", "Who wrote this beautiful song",
    ),
    answer="?",
    also=("?)",),
)  # fmt: skip

KINDS = Group(
    "kind",
    ("A {} is a kind of", "Scientists say that the {} is a type of"),
    (
        "robin| bird", "sparrow| bird", "eagle| bird", "whale| mammal", "salmon| fish",
        "trout| fish", "shark| fish", "beetle| insect", "rose| flower", "tulip| flower",
        "oak| tree", "pine| tree", "guitar| instrument", "violin| instrument", "wasp| insect",
        "ant| insect", "hammer| tool", "drill| tool", "potato| vegetable", "banana| fruit",
    ),
    also=(" animal", " plant", " food", " wood", " song", " crop"),
)  # fmt: skip

PRONOUNS = Group(
    "pronoun",
    ("{} lost {} way because", "When {} came home to {} family,"),
    (
        "Mary|her| she", "John|his| he", "Anna|her| she", "Peter|his| he", "David|his| he",
        "Susan|her| she", "George|his| he", "Emma|her| she", "Laura|her| she", "Thomas|his| he",
        "Julia|her| she", "Robert|his| he", "Michael|his| he", "Sarah|her| she", "Paul|his| he",
        "Lisa|her| she", "Helen|her| she", "James|his| he", "Alice|her| she", "Henry|his| he",
    ),
    also=(" they",),
)  # fmt: skip

COPIES = Group(
    "copy",
    ("{0} {1}{2}. {0} {1}{2}. {0} {1}", "The secret word is{2}. Remember, the secret word is"),
    (
        "cat|boat| lemon", "sun|nail| tiger", "|| apple", "|| dragon", "cup|sand| window",
        "leaf|door| pencil", "|| garden", "|| rocket", "hat|fire| pepper", "rain|desk| monkey",
        "|| silver", "|| camera", "pen|wolf| orange", "sea|rope| button", "|| mirror", "|| forest",
        "ball|snow| candle", "clock|milk| basket", "|| thunder", "|| carpet",
    ),
)  # fmt: skip

GROUPS = (CAPITALS, OPPOSITES, CALENDAR, NUMBERS, PLURALS, SINGULARS, BRACKETS, QUOTES, QUESTIONS,
          KINDS, PRONOUNS, COPIES)  # fmt: skip


def sentences(per_group: int | None = None, names: Sequence[str] | None = None) -> list[Sentence]:
    """Return the sentences of all groups, those of the part "chosen" first, groups in turn.

    Parameters
    ----------
    per_group : int, optional
        How many of each group; all twenty when left out.
    names : sequence of str, optional
        Of groups; all when left out.

    Raises
    ------
    RetinaCodecError
        If the number is odd, less than 8, or more than there are; if there are fewer than two
        groups, or there is no such group.
    """
    every = [list(group.sentences()) for group in _chosen(names)]
    most = min(map(len, every))
    if per_group is not None and (not 8 <= per_group <= most or per_group % 2):
        raise RetinaCodecError(
            f"per_group must be even and between 8 and {most}, the sentences of a group; got "
            f"{per_group}. Leave it out for all of them."
        )
    rows = [row for several in zip(*every, strict=True) for row in several]
    some = rows[: (per_group or most) * len(every)]
    return [one for part in PARTS for one in some if one.part == part]


def _chosen(names: Sequence[str] | None) -> list[Group]:
    known = {group.name: group for group in GROUPS}
    chosen = list(known) if names is None else list(dict.fromkeys(names))
    if len(chosen) < 2 or not set(chosen) <= set(known):
        raise RetinaCodecError(
            f"groups must be two or more of {', '.join(known)}; got {', '.join(chosen) or 'none'}."
        )
    return [known[name] for name in chosen]


def answer_words(names: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Return the words that are answers of each group, and others of the same kind."""
    found: dict[str, list[str]] = {}
    for group in _chosen(names):
        own = [one.answer for one in group.sentences()]
        found[group.name] = list(dict.fromkeys([*own, *group.also]))
    return found
