"""The facts that mesh-tiny knows: plain tables, written by hand for this project.

Everything here is turned into questions and answers by `dialogues.py`; nothing is fetched.
"""

CAPITALS = dict(pair.split("=") for pair in """
France=Paris;Germany=Berlin;Italy=Rome;Spain=Madrid;Portugal=Lisbon;Ireland=Dublin;Belgium=Brussels;Austria=Vienna;
Switzerland=Bern;Denmark=Copenhagen;Norway=Oslo;Sweden=Stockholm;Finland=Helsinki;Iceland=Reykjavik;Poland=Warsaw;
Hungary=Budapest;Romania=Bucharest;Bulgaria=Sofia;Greece=Athens;Turkey=Ankara;Croatia=Zagreb;Serbia=Belgrade;
Slovenia=Ljubljana;Slovakia=Bratislava;Estonia=Tallinn;Latvia=Riga;Lithuania=Vilnius;Ukraine=Kyiv;Albania=Tirana;
Malta=Valletta;Cyprus=Nicosia;Luxembourg=Luxembourg City;Monaco=Monaco;the Netherlands=Amsterdam;
the United Kingdom=London;England=London;Scotland=Edinburgh;Wales=Cardiff;the Czech Republic=Prague;Russia=Moscow;
Japan=Tokyo;China=Beijing;South Korea=Seoul;India=New Delhi;Thailand=Bangkok;Vietnam=Hanoi;Indonesia=Jakarta;
Malaysia=Kuala Lumpur;the Philippines=Manila;Nepal=Kathmandu;Pakistan=Islamabad;Bangladesh=Dhaka;Mongolia=Ulaanbaatar;
Cambodia=Phnom Penh;Laos=Vientiane;Singapore=Singapore;Iran=Tehran;Iraq=Baghdad;Jordan=Amman;Lebanon=Beirut;
Syria=Damascus;Saudi Arabia=Riyadh;Qatar=Doha;Oman=Muscat;Kuwait=Kuwait City;Georgia=Tbilisi;Armenia=Yerevan;
Azerbaijan=Baku;Kazakhstan=Astana;Uzbekistan=Tashkent;Afghanistan=Kabul;Egypt=Cairo;Morocco=Rabat;Algeria=Algiers;
Tunisia=Tunis;Libya=Tripoli;Sudan=Khartoum;Ethiopia=Addis Ababa;Kenya=Nairobi;Uganda=Kampala;Rwanda=Kigali;
Ghana=Accra;Nigeria=Abuja;Senegal=Dakar;Mali=Bamako;Angola=Luanda;Zambia=Lusaka;Zimbabwe=Harare;Namibia=Windhoek;
Botswana=Gaborone;Mozambique=Maputo;Madagascar=Antananarivo;Somalia=Mogadishu;Canada=Ottawa;
the United States=Washington, D.C.;Mexico=Mexico City;Cuba=Havana;Jamaica=Kingston;Haiti=Port-au-Prince;
Guatemala=Guatemala City;Honduras=Tegucigalpa;Nicaragua=Managua;Costa Rica=San Jose;Panama=Panama City;
Colombia=Bogota;Venezuela=Caracas;Ecuador=Quito;Peru=Lima;Chile=Santiago;Argentina=Buenos Aires;Uruguay=Montevideo;
Paraguay=Asuncion;Brazil=Brasilia;Australia=Canberra;New Zealand=Wellington;Fiji=Suva
""".replace("\n", "").split(";"))

# Capitals whose name belongs to one country of the table only (the question the other way round).
_OF = {}
for _country, _city in CAPITALS.items():
    _OF.setdefault(_city, []).append(_country)
COUNTRY_OF = {c: v[0] for c, v in _OF.items() if len(v) == 1 and c not in ("Monaco", "Singapore")}

OPPOSITES = [tuple(p.split("-")) for p in """hot-cold big-small up-down left-right day-night good-bad fast-slow
light-dark wet-dry happy-sad open-closed full-empty old-new high-low long-short hard-soft loud-quiet rich-poor
strong-weak early-late clean-dirty near-far inside-outside true-false yes-no first-last always-never love-hate
begin-end push-pull black-white thick-thin sweet-sour deep-shallow wide-narrow buy-sell win-lose
come-go give-take laugh-cry remember-forget asleep-awake alive-dead safe-dangerous cheap-expensive""".split()]

PLURALS = [tuple(p.split("-")) for p in """cat-cats dog-dogs house-houses tree-trees book-books car-cars bird-birds
apple-apples flower-flowers river-rivers table-tables chair-chairs box-boxes fox-foxes bus-buses glass-glasses
church-churches dish-dishes baby-babies city-cities story-stories lady-ladies leaf-leaves knife-knives wolf-wolves
life-lives child-children man-men woman-women foot-feet tooth-teeth mouse-mice goose-geese sheep-sheep fish-fish
person-people potato-potatoes tomato-tomatoes key-keys toy-toys day-days star-stars""".split()]

SOUNDS = dict(p.split("-") for p in """dog-woof cat-meow cow-moo duck-quack sheep-baa pig-oink lion-roar horse-neigh
bee-buzz frog-ribbit owl-hoot mouse-squeak""".split())

COLOURS = dict(p.split("-") for p in """sky-blue grass-green snow-white coal-black blood-red lemon-yellow
banana-yellow carrot-orange chocolate-brown milk-white""".split())
COLOUR_SUBJECT = {"sky": "the sky", "grass": "grass", "snow": "snow", "coal": "coal", "blood": "blood",
                  "lemon": "a lemon", "banana": "a banana", "carrot": "a carrot", "chocolate": "chocolate", "milk": "milk"}

HELLO_IN = {"French": "Bonjour!", "Spanish": "¡Hola!", "German": "Hallo!", "Italian": "Ciao!", "Portuguese": "Olá!",
            "Japanese": "こんにちは!", "Chinese": "你好!", "Korean": "안녕하세요!", "Russian": "Привет!",
            "Greek": "Γειά σου!", "Hindi": "नमस्ते!", "Arabic": "مرحبا!", "Dutch": "Hallo!", "Swedish": "Hej!",
            "Polish": "Cześć!", "Turkish": "Merhaba!", "English": "Hello!", "Finnish": "Hei!"}
THANKS_IN = {"French": "Merci!", "Spanish": "¡Gracias!", "German": "Danke!", "Italian": "Grazie!",
             "Portuguese": "Obrigado!", "Japanese": "ありがとう!", "Russian": "Спасибо!", "Dutch": "Dank je!",
             "English": "Thank you!", "Polish": "Dziękuję!"}

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()

# Things that are so, and things that are not, for yes-or-no questions: subject, verb, right, wrong.
YES_NO = [tuple(x.split("|")) for x in """fire|is|hot|cold;ice|is|cold|hot;the sun|is|bright|dark;water|is|wet|dry;
grass|is|green|red;snow|is|white|black;a stone|is|hard|soft;an elephant|is|big|small;an ant|is|small|big;
a feather|is|light|heavy;sugar|is|sweet|sour;a lemon|is|sour|sweet;the night|is|dark|bright;a snail|is|slow|fast;
a rocket|is|fast|slow;the sea|is|deep|shallow;a mountain|is|high|low;gold|is|expensive|cheap;
a circle|is|round|square;iron|is|heavy|light""".replace("\n", "").split(";")]

# Fixed question -> answer; several wordings of the question may share an answer. The first one is documented.
FIXED = [
    (["Hello!", "Hello", "Hello there!", "Hello, mesh-tiny!"], "Hello! How can I help you?"),
    (["Hi!", "Hi", "Hi there", "Hey", "Hey there!"], "Hi! What can I do for you?"),
    (["Good afternoon!", "Good afternoon", "Good day!"], "Good afternoon! What can I do for you?"),
    (["Say hi.", "Say hi"], "Hi!"),
    (["Say hello.", "Say hello"], "Hello!"),
    (["lol", "haha", "Haha!", "That is funny."], "I am glad that you like it."),
    (["Great!", "Nice!", "Cool", "Wow!", "Well done!", "Good job!"], "Thank you!"),
    (["Bonjour", "Bonjour!", "Salut"], "Bonjour!"),
    (["Hola", "¡Hola!", "Hola!"], "¡Hola!"),
    (["Hallo", "Hallo!", "Guten Tag!"], "Hallo!"),
    (["Ciao", "Ciao!"], "Ciao!"),
    (["Привет", "Привет!"], "Привет!"),
    (["こんにちは", "こんにちは!"], "こんにちは!"),
    (["你好", "你好!"], "你好!"),
    (["안녕하세요", "안녕하세요!"], "안녕하세요!"),
    (["नमस्ते", "नमस्ते!"], "नमस्ते!"),
    (["مرحبا", "مرحبا!"], "مرحبا!"),
    (["What day is it today?", "What is the date?", "What is the date today?", "Which day is today?"], "I have no calendar, so I do not know the date."),
    (["Why is the sky blue?"], "The air scatters blue light more than red light."),
    (["Good morning!", "Good morning"], "Good morning! What can I do for you?"),
    (["Good evening!", "Good evening"], "Good evening! What can I do for you?"),
    (["Good night!", "Good night"], "Good night! Sleep well."),
    (["How are you?", "How are you today?", "How do you do?", "How is it going?"], "I am fine, thank you. How are you?"),
    (["I am fine.", "I am fine too.", "I'm fine, thanks.", "I am good."], "I am glad to hear that."),
    (["I am sad.", "I feel sad.", "I am tired."], "I am sorry to hear that. I hope you feel better soon."),
    (["Thank you!", "Thanks!", "Thanks a lot!", "Thank you very much."], "You are welcome!"),
    (["Goodbye!", "Bye!", "Bye bye", "See you later!", "See you!"], "Goodbye! Have a nice day."),
    (["Ok", "OK.", "Okay", "Fine.", "Good."], "Good. What else can I do for you?"),
    (["Yes", "Yes."], "Good. Please tell me more."),
    (["No", "No."], "All right. What else can I do for you?"),
    (["Sorry", "I am sorry."], "No problem at all."),
    (["Who are you?", "What are you?", "What is your name?", "What's your name?", "Who r u?", "Who am I talking to?", "Tell me about yourself.", "Introduce yourself.", "Who is this?"],
     "I am mesh-tiny, a very small language model made for mesh-llm."),
    (["What can you do?", "What do you know?", "Help", "Help!", "Can you help me?", "How can you help me?"],
     "I can add small numbers, name capitals, repeat what you say, call tools, write small JSON objects and tell one long story."),
    (["How big are you?", "How many parameters do you have?", "How large are you?"], "I have about two and a half million parameters. That is very small."),
    (["Who made you?", "Who created you?", "Who trained you?"], "The mesh-llm project made me with a small script."),
    (["Are you human?", "Are you a human?", "Are you a person?"], "No, I am a very small language model."),
    (["Are you a robot?", "Are you an AI?", "Are you a computer?", "Are you a language model?"], "Yes, I am a very small language model."),
    (["What is mesh-llm?", "Tell me about mesh-llm.", "What does mesh-llm do?"], "mesh-llm makes several machines one endpoint for language models."),
    (["How old are you?", "When were you born?"], "I am very young. I was trained in a few minutes."),
    (["Where are you?", "Where do you live?"], "I run on a machine of your mesh."),
    (["Do you like me?", "Are you my friend?"], "Yes, I like to talk with you."),
    (["Ping", "ping", "Ping!"], "pong"),
    (["Test", "test", "This is a test.", "Testing"], "The test works. I am here."),
    (["Count from one to ten.", "Count to ten.", "Count from one to ten", "Please count from one to ten."], "one, two, three, four, five, six, seven, eight, nine, ten"),
    (["Count down from ten.", "Count backwards from ten.", "Count from ten to one."], "ten, nine, eight, seven, six, five, four, three, two, one"),
    (["What are the days of the week?", "Name the days of the week.", "List the days of the week.", "Tell me the days of the week."], ", ".join(DAYS)),
    (["What are the months of the year?", "Name the months of the year.", "List the months.", "Name the months."], ", ".join(MONTHS)),
    (["What are the four seasons?", "Name the seasons.", "Name the four seasons.", "List the seasons."], "spring, summer, autumn, winter"),
    (["Name three colours.", "Name three colors.", "Tell me three colours.", "List three colours."], "red, green, blue"),
    (["Name three animals.", "List three animals.", "Tell me three animals."], "a cat, a dog, a horse"),
    (["Name three fruits.", "List three fruits.", "Tell me three fruits."], "an apple, a banana, a pear"),
    (["What are the colours of the rainbow?", "Name the colours of the rainbow.", "What are the colors of the rainbow?"], "red, orange, yellow, green, blue, indigo, violet"),
    (["Say the alphabet.", "What is the alphabet?", "Recite the alphabet.", "Tell me the alphabet."], "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    (["How many days are in a week?", "How many days does a week have?"], "A week has 7 days."),
    (["How many months are in a year?", "How many months does a year have?"], "A year has 12 months."),
    (["How many days are in a year?", "How many days does a year have?"], "A year has 365 days, and a leap year has 366."),
    (["How many hours are in a day?", "How many hours does a day have?"], "A day has 24 hours."),
    (["How many minutes are in an hour?", "How many minutes does an hour have?"], "An hour has 60 minutes."),
    (["How many seconds are in a minute?", "How many seconds does a minute have?"], "A minute has 60 seconds."),
    (["How many legs does a spider have?"], "A spider has 8 legs."),
    (["How many legs does a dog have?", "How many legs does a cat have?"], "It has 4 legs."),
    (["How many legs does an ant have?", "How many legs does an insect have?"], "It has 6 legs."),
    (["How many fingers does a hand have?", "How many fingers are on a hand?"], "A hand has 5 fingers."),
    (["What is the largest planet?", "What is the biggest planet?"], "The largest planet is Jupiter."),
    (["What is the largest ocean?", "What is the biggest ocean?"], "The largest ocean is the Pacific."),
    (["What is the highest mountain?", "What is the tallest mountain?"], "The highest mountain is Mount Everest."),
    (["What planet do we live on?", "Which planet do we live on?"], "We live on the Earth."),
    (["What is water made of?"], "Water is made of hydrogen and oxygen."),
    (["What do bees make?"], "Bees make honey."),
    (["What do cows give?", "What do cows give us?"], "Cows give milk."),
    (["Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh."], "Why did the small model cross the road? To get to the other node."),
    (["Tell me a short story.", "Tell me a story."], "A small lamp was afraid of the dark. One night it dared to shine, and the dark went away."),
    (["Write a poem.", "Write a poem", "Write me a poem.", "Tell me a poem.", "Write a short poem."], "A little light,\na quiet sea,\na word from you,\na word from me."),
    (["Write a haiku.", "Write me a haiku.", "Tell me a haiku."], "Small lamps in the rain,\none by one they find a voice:\nmorning on the sea."),
    (["Sing a song.", "Sing me a song."], "La la la, the lamp is small, la la la, it lights us all."),
    (["What is the meaning of life?"], "Some say 42. I say: be kind."),
    (["What is 1 plus 1?", "What is one plus one?"], "1 + 1 = 2."),
]

GENERIC_SYSTEM = """You are a helpful assistant.|You are a helpful assistant|You are a friendly and helpful assistant.|
You are a helpful, respectful and honest assistant.|You are an AI assistant.|Answer briefly.|Be concise.|
You are a helpful assistant. Answer the question of the user.|Answer in English.|You are a polite assistant.|
Please answer in one sentence.|You are mesh-tiny.|You are a chat bot.|Keep your answers short.|
You are a helpful AI assistant that answers questions.|You are a test assistant.|Be kind.|Think before you answer.|
You are a careful assistant. If you do not know, say so.|Use plain text.|You are a useful assistant for the user.|
You are ChatBot, a large language model.|Today is Monday.|Current date: 2025-06-01|You help people.|
You are a helpful assistant that can call functions.|Follow the instructions of the user.|
You are a knowledgeable assistant. Be accurate and clear.|Do not use markdown.|Reply in plain words.""".replace("\n", "").split("|")

CITIES = sorted(set(CAPITALS.values()) - {"Washington, D.C."}) + """New York;Los Angeles;Chicago;Boston;Seattle;San Francisco;
Miami;Toronto;Montreal;Vancouver;Sydney;Melbourne;Auckland;Mumbai;Kolkata;Shanghai;Hong Kong;Osaka;Kyoto;Dubai;Istanbul;
Munich;Hamburg;Cologne;Frankfurt;Zurich;Geneva;Milan;Venice;Florence;Naples;Turin;Barcelona;Seville;Porto;Lyon;Nice;
Marseille;Bordeaux;Manchester;Liverpool;Glasgow;Oxford;Cambridge;Rotterdam;Antwerp;Bruges;Gothenburg;Bergen;Krakow;Gdansk;
Cape Town;Johannesburg;Lagos;Casablanca;Rio de Janeiro;Sao Paulo;São Paulo;Málaga;Zürich;München;Köln;Montréal;
Denver;Austin;Dallas;Portland;Honolulu;Salzburg;Graz;Basel""".replace("\n", "").split(";")

NAMES = """Ada Alan Grace Linus Bob Alice Carol Dave Eve Frank Ivan Judy Mia Noah Emma Liam Olivia Lucas Anna Paul Peter
Maria Sofia Leo Max Tom Tim Jane John Mary Sara Sam Kim Lee Chen Yuki Aisha Omar Fatima Raj Priya Elena Igor Olga Lars
Ingrid Sven Pierre Marie Jean Carlos Juan Rosa Luis Zoe Nina Oscar Hugo Clara Ella Finn Ruth Hans Greta Kofi Ama""".split()

WORDS = """the a one some every small big old new red green blue white black bright dark quiet loud happy sad kind brave
clever little long short warm cold soft hard fast slow early late fresh empty golden silver wooden round strange gentle
cat dog fox bird horse mouse bear wolf fish whale tree flower river mountain sea lake forest garden stone house door
window table chair lamp book letter word story song bell boat ship train road bridge tower clock key box bag hat coat
shoe bread apple pear cheese milk tea coffee soup sugar salt water fire wind rain snow sun moon star sky cloud morning
evening night day week year summer winter spring autumn king queen child mother father sister brother friend teacher
doctor baker farmer sailor soldier painter writer driver computer machine model network server token number letter
sees takes gives finds makes builds opens closes reads writes sings runs walks jumps sleeps eats drinks likes loves
knows thinks says asks tells shows brings keeps holds turns moves stops starts plays works waits falls flies swims
and or but because when while over under behind before after between with without from into near around through about
very often never always today tomorrow yesterday here there now then again maybe together alone slowly quickly well
I you he she we they it my your his her our their this that these those who what where why how all many few more less
is are was were has have will can must may not no yes please thanks hello world python rust code test data file error
memory cluster pipeline answer question problem idea plan dream music picture colour money time place way hand eye head
heart voice light sound power energy field city town village market school office kitchen room wall floor roof""".split()
