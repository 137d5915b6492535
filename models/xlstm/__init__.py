"""The xLSTM cells and what is built of them."""
