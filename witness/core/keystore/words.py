"""The words of derived names: two lists of 256, so that one byte picks a word and none is likelier.

The lists are part of the derivation: a word changed here renames every device that has it. The known answers
in tests/core/keystore hold them still.
"""

from __future__ import annotations

from typing import Final

ADJECTIVES: Final = tuple(
    """
    able agile airy alert amber ample ancient apt arctic ardent ashen astute august autumn azure balmy bare
    basic beige bitter blithe blue bold bonny brave breezy bright brisk broad bronze brown burly calm candid
    canny careful central chalky cheery chief chilly civil classic clean clear clever close cloudy coastal
    cobalt cool copper coral cosmic cosy cream crimson crisp curious curly cyan dainty dapper daring dark
    dear deep deft dense dewy direct distant downy dry dusky dusty eager early earnest earthy eastern easy
    elder emerald equal even exact fabled fair faithful famous fancy far fast festive fine firm first fleet
    floral fluent flying fond formal fragrant frank free fresh frosty frugal full gallant gentle genuine
    giant glad gleaming global golden good grand granite grateful great green grey handy happy hardy hasty
    hazel hearty heavy hidden high hollow honest humble humid icy ideal inland inner iron ivory jade jolly
    jovial joyful keen kind large late lavish leafy lean level light limber limpid linen lively local lofty
    long loud loyal lucid lucky lunar lush magic main major maple marble mellow merry mighty mild mint misty
    modest mossy native neat nimble noble northern novel oaken oblong ochre old olive onyx opal open orange
    orderly outer pale patient peaceful pearly pink placid plain plum plush polar polite precise prime
    prompt proper proud prudent pure purple quick quiet radiant rainy rapid rare ready red regal rich ripe
    rising robust rocky rosy round royal ruby russet rustic sage sandy scarlet secret sharp shiny silent
    silver simple sincere sleek slim smart smooth snowy sunny
    """.split()  # noqa: SIM905 - five hundred quoted words are no easier to read
)
"""Adjectives, alphabetically."""

NOUNS: Final = tuple(
    """
    acorn alder almond anchor anvil apple apron arch arrow aspen atlas attic badger bagel balcony bamboo
    banjo barge barley barn basin basket bay beacon bead beam bear beaver beech beetle bell bench berry
    birch bison blanket blossom boat bobbin bonnet book boulder bowl branch brass bread breeze brick bridge
    brook broom bucket buffalo bugle burrow butter button cabin cactus camel canal candle canoe canvas
    canyon carpet carrot castle cave cedar cellar chair chapel cherry chestnut chimney cider circle citadel
    clam clay cliff clock cloud clover coast cobble comet compass cove crane crater creek cricket crow crown
    crystal cypress dahlia daisy dale dawn deer delta desert dolphin donkey door dove dune eagle easel echo
    elk elm ember falcon farm feather fern ferry field finch fjord flag flame flint flute forest forge
    fountain fox garden gate geyser ginger glacier glade globe goose gorge grain grape grove gull hammer
    harbour harp hawk heath hedge heron hill hive honey horizon horn ibis inlet island ivy jasmine jetty
    juniper kayak kernel kestrel kettle key kite ladder lagoon lake lamp lantern larch lark lemon lichen
    lily linden lion loft loom lotus lute lynx magnet magpie mallet mango mantle marsh meadow melon mesa
    mill mirror moor moose moss mountain muffin oak oasis oat ocean orchard orchid otter owl oyster paddle
    palm panda paper parsley pear pebble pelican pepper piano pier pigeon pine planet plateau plough pond
    poplar poppy prairie prism puffin quarry quill quince rabbit raft rain raven reed reef ridge river robin
    rocket saddle sail salmon satchel scarf shell ship shore shrub
    """.split()  # noqa: SIM905 - five hundred quoted words are no easier to read
)
"""Nouns, alphabetically; none is among the adjectives."""
