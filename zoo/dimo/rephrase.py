"""Paraphrases of motion sentences from a small thesaurus, used as training data of the text head.

The entries follow WordNet 3.1 (Princeton University) where it has the motion sense of a word: synonyms, the hypernym,
hyponyms and words of the gloss. The rest is everyday English. The thesaurus was written after the evaluation sentences
of the kangaroo and by the same author, so results on those are weaker evidence than results on sentences written
independently.
"""

from __future__ import annotations

import random
import re
from functools import cache

# word or phrase: alternatives, all in the third person singular, as after "it".
THESAURUS = """
hops: jumps | leaps | bounds | springs | skips | jumps lightly
jumps: leaps | bounds | springs | hops | bounces | moves forward by leaps and bounds
leaps: jumps | bounds | springs | bounces | moves forward by leaps and bounds
waves: signals with | gestures with | motions with | beckons with | flourishes | brandishes
raises: lifts | lifts up | elevates | brings up | hoists | raises to a higher position
lowers: lets down | brings down | takes down | dips | moves to a lower position
stretches: extends | stretches out | unfolds | cranes | extends its body
spreads: opens | unfolds | spreads out | splays | extends
sways: rocks | swings | rolls | totters | moves back and forth | moves sideways
claps: applauds | claps its hands together | acclaims
boxes: hits with the fist | spars | shadowboxes | fights | engages in a boxing match
punches: hits | delivers a quick blow | strikes with the fist
bounces: springs back | bounds | jounces | rebounds | takes a hop | moves up and down repeatedly
bows: bows down | takes a bow | curtsies | stoops | bends its head or upper body in respect | bends its knee
looks: gazes | stares | glances | takes a look | has a look | directs its gaze
nods: lowers and raises its head | nods its head | lowers and raises its head to agree | signals assent
shakes its head: turns its head left and right to deny | makes a headshake
shakes: trembles | moves back and forth | rocks | vibrates | agitates
tilts: leans | tips | slants | inclines | cocks | bends | cants
sits: sits down | is seated | takes a seat | perches | rests | squats
sits back on: sits down on | rests on | perches on | leans back on
crouches: squats | stoops | hunkers down | scrunches up | bends | sits on its heels | huddles | cowers
leans: tilts | tips | slants | inclines | bends
twists: turns | writhes | squirms | wriggles | wrenches | contorts | bends its body
shivers: shudders | trembles | quivers | quakes | shakes as from cold
dances: moves to musical accompaniment | moves in a graceful and rhythmical way | waltzes | jives | bops
peeks: glances | looks | peeps | takes a brief look | looks furtively
swings: sways | lashes | moves in a curve | moves back and forth | waves
kicks: strikes out | boots | strikes with the foot | thrashes about
taps: strikes lightly | pats | tips | percusses
walks: uses its feet to advance | treads | strolls | marches | goes on foot
turns: turns over | rotates | changes direction | swings | twists
swims: travels through water | paddles | floats | bathes
flaps: beats | flutters | flails | moves with a thrashing motion
steps: treads | takes a step | puts down its foot
curls: coils | curls up | loops | bends | curves
darts: dashes | flits | shoots | scoots | moves with sudden speed
points: indicates | shows | aims
spins: whirls | twirls | spins around | gyrates | revolves quickly
puffs: blows | pants | swells | heaves
slithers: slides | glides | moves smoothly
sinks: drops | drops down | goes down | descends | settles | falls
melts: dissolves | thaws | liquefies | becomes soft
oozes: seeps | flows | leaks | exudes
flutters: flits | flickers | quivers | beats its wings rapidly
rears: rises up | rears back | lifts itself | stands up on its hind legs
strikes: hits | delivers a sharp blow | attacks | lunges
drifts: floats | wanders | is carried along | wafts
wags: waggles | wiggles | moves from side to side
snaps: snaps shut | clicks | closes with a snap
scuttles: scurries | scampers | skitters | moves hurriedly
pulses: pulsates | throbs | beats | expands and contracts rhythmically
pounces: swoops | jumps on its prey | moves down as in an attack
sniffs: smells | inhales audibly through the nose | takes a whiff
noses: sniffs | scents | pushes with its nose
wiggles: jiggles | waggles | moves to and fro
jiggles: joggles | wiggles | moves to and fro
rattles: shakes and makes a rattling noise | makes short successive sounds
coils: winds | spirals | curls | loops
hides: conceals itself | goes into hiding | lies low
ducks: dips | moves its head quickly downwards | dodges
closes: shuts | folds | draws together
creeps: crawls | sneaks | moves slowly
wobbles: shakes | trembles | moves unsteadily | shimmies
grows: becomes larger | enlarges | gets bigger | rises
loops: circles | performs a loop | moves in loops
pecks: picks | strikes with its beak | hits lightly with a picking motion
balances: poises | is in equilibrium | keeps its balance
trots: jogs | runs at a moderate speed
digs: delves | excavates | turns up earth
howls: wails | ululates | cries loudly | yowls
arches: curves | bends | forms an arch
rolls: turns over | rolls over | wheels
flicks: flips | jerks | tosses with a quick motion
droops: sags | flags | wilts | hangs loosely
twirls: whirls | spins | swirls | turns in a spinning motion
rises: lifts | goes up | comes up | moves upward | arises
gulps: swallows hurriedly | quaffs | swigs
chirps: peeps | cheeps | tweets | makes high-pitched sounds
pinches: squeezes | nips | tweaks
hugs: embraces | holds tightly in its arms | cuddles
shrugs: raises its shoulders
begs: pleads | implores
paw: hand | forepaw | animal foot
paws: hands | forepaws | mitts
hand: paw | fist
arms: limbs | forelimbs
pouch: pocket | sack | bag
foot: leg | hoof | animal foot
into: inside
once: one time
twice: two times | doubly
three times: thrice | on three occasions
forward: forwards | ahead | onward | frontward
backwards: back | backward | rearward | to the rear
to the left: leftward | leftwards | toward the left | on the left
to the right: rightward | rightwards | toward the right | on the right
left: to the left | leftward | toward the left | on the left
right: to the right | rightward | toward the right | on the right
up: upward | upwards | to a higher position
down: downward | downwards | to a lower position
around: about | in no particular direction | round and round
round: around | in a circle | by a circular route
tall: high | to its full height
both: the two | both of
then: subsequently | soon afterward | after that | later | next
and: and also | while it | and at the same time
"""
NOUNS_AFTER = (
    "paw",
    "foot",
    "hand",
    "wing",
    "claw",
    "arm",
    "leg",
    "fin",
    "leaf",
    "tentacle",
    "hind",
    "eye",
    "ear",
)
SUBJECTS = ("", "", "it ", "the animal ", "the creature ")


def rephrase(sentence: str, count: int, seed: int = 0) -> list[str]:
    """Return `count` paraphrases of a sentence, deterministic in the sentence and the seed.

    Words outside the thesaurus are kept; a subject such as "the animal" may be added.
    """
    rng = random.Random(f"{seed}:{sentence}")
    return [_once(sentence, rng) for _ in range(count)]


def _once(sentence: str, rng: random.Random) -> str:
    thesaurus, words, output, place = _thesaurus(), re.findall(r"[\w'-]+|,", sentence.lower()), [], 0
    while place < len(words):
        for length in (3, 2, 1):
            phrase = " ".join(words[place : place + length])
            # In "its left paw", "left" is not a direction.
            noun = (
                phrase in ("left", "right")
                and words[place + 1 : place + 2]
                and words[place + 1] in NOUNS_AFTER
            )
            if phrase in thesaurus and not noun:
                output.append(rng.choice(thesaurus[phrase]) if rng.random() < 0.7 else phrase)
                break
        else:
            output.append(phrase)
        place += length
    return rng.choice(SUBJECTS) + " ".join(output).replace(" ,", ",")


@cache
def _thesaurus() -> dict[str, list[str]]:
    entries = (line.split(": ", 1) for line in THESAURUS.strip().splitlines())
    return {word: alternatives.split(" | ") for word, alternatives in entries}
