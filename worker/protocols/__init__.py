"""How a run is spoken: one interface, two protocols."""
