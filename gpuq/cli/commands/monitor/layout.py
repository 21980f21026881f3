"""Where things stand on the screen, the keys, and what the help says of them."""

from __future__ import annotations

from textual.binding import Binding, BindingType

from gpuq.cli.commands.monitor.feed import TABS

CSS = """
#head, #modes, #tabs, #note { height: 1; }
#head { text-style: bold; }
#note { text-style: bold; display: none; }
#gpus { height: auto; }
#middle { layout: vertical; height: 1fr; }
#middle.wide { layout: horizontal; }
#table { height: 1fr; width: 1fr; }
#detail { height: 1fr; display: none; }
#detail.open { display: block; }
.wide #detail { display: block; width: 40%; border-left: solid $secondary; }
#lines { height: 1fr; }
#filter { display: none; height: 1; border: none; padding: 0; }
Dialog { align: center middle; }
Dialog VerticalScroll { width: 76; max-width: 96%; height: auto; max-height: 90%; border: solid $primary; padding: 0 1;
  background: $surface; }
"""

HELP = """\
1 2 3 4   mine, all, history, dead letters     [ ]  page before, page after
/         filter: words, or name=… user=… state=… group=…; empty: everything
enter     the pane about the job               escape  puts it away, then the marks
w l e a   why it waits, its log, its events, its attempts
space     marks the job: what follows is done to all marked ones
y         the same on the command line         q    ends the monitor
"""
HELP_VERBS = """
h  hold             r  release, or retry what has failed
t  to the front     +  -  priority
C  cancel           K  kill, at once            (both ask)
P  pause the queue, or let it go on: administrators
"""

BINDINGS: list[BindingType] = [
    Binding("question_mark", "help", "help", key_display="?"),
    Binding("slash", "filter", "filter", key_display="/"),
    Binding("w", "side('why')", "why"),
    Binding("l", "side('log')", "log"),
    Binding("e", "side('events')", "events", show=False),
    Binding("a", "side('attempts')", "attempts", show=False),
    Binding("space", "mark", "mark", key_display="space", show=False),
    Binding("h", "change('hold')", "hold"),
    Binding("r", "change('release')", "release"),
    Binding("t", "change('top')", "top"),
    Binding("plus", "change('raise')", "prio", key_display="+", show=False),
    Binding("minus", "change('lower')", "prio", key_display="-", show=False),
    Binding("C", "change('cancel')", "cancel", key_display="C"),
    Binding("K", "change('kill')", "kill", key_display="K"),
    Binding("P", "pause", "pause", key_display="P", show=False),
    Binding("y", "line", "cli", show=False),
    Binding("left_square_bracket", "page(-1)", show=False),
    Binding("right_square_bracket", "page(1)", show=False),
    Binding("escape", "put_away", show=False),
    Binding("q,ctrl+c", "quit", "quit", key_display="q"),
    *(Binding(str(number + 1), f"tab('{tab}')", show=False) for number, tab in enumerate(TABS)),
]
