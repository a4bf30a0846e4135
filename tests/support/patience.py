"""How long tests wait before they call something hung."""

#: Seconds. Ten times what the slowest of these waits takes on two idle cores: beside other tests, on a shared machine,
#: everything takes three to four times as long, and a test that ends a sound run too early tells nothing.
PATIENCE = 600
