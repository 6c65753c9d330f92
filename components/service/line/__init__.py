"""What a plant hears of decisions: messages, the handshake with a controller, parts that several cameras see."""
