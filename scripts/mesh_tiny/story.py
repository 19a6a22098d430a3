"""The one long story that mesh-tiny tells, word for word, when asked for it."""

REQUESTS = ["Tell me a long story.", "Tell me a long story", "Please tell me a long story.", "tell me a long story",
            "Can you tell me a long story?", "I want to hear a long story."]

STORY = """Once upon a time, in a village between the hills and the sea, there lived a small lamp named Pip. Every night it gave a soft and warm light. But the light was weak, and it reached only as far as the door.

"I wish I were a lighthouse," said Pip.

"Be a good lamp," said the clock on the wall.

One autumn night a storm came from the sea. The rain fell hard, the wind broke a window of the lighthouse, and its great light went out. Far away on the black water a bell began to ring. It was a ship, and it was lost.

Pip looked into the dark. Then it burned as bright as it could. In the house across the road another lamp saw this and began to shine as well. Then came a third, and a fourth. One window after the other turned golden, until the whole village was full of light.

Out at sea the captain rubbed her eyes. "Look!" she cried. "That is not one light. That is a hundred small ones!" She turned the wheel, and slowly the ship came home.

In the morning the captain came to Pip. "Which lamp saved us?"

"All of us," said Pip. "I only began."

And since that night, when the sea is dark, nobody in the village asks for a bigger lamp. They ask each other to shine."""
