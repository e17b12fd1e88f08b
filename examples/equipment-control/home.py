"""The devices of a room. Switching one only prints what happens: put your own remote control here."""

from typing import Literal

from askq.tools import tool


@tool
def equipment_control(device: Literal["light", "fan", "TV", "AC"], action: Literal["on", "off"]) -> str:
    """Switch a device of the room on or off.

    When it is hot, switch on the fan and the AC. When it is cold, switch off the fan and the AC.
    To watch a drama, a movie or the news, switch on the TV. When it is dark, or to read, switch on the light.
    Before going to sleep, switch off the light, the TV, the fan and the AC.

    Args:
        device: What to switch.
        action: Which way.
    """
    print(f"[{device}] -> {action}")
    return f"the {device} is {action}"
