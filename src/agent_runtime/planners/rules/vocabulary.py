"""The words of the grammar. `WORDS` are the sets that patterns name with `$`."""

from collections.abc import Sequence

from agent_runtime.planners.rules.lexer import Token


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


WORDS = {
    "the": "the|a|an|my|our|this|that|these|those|some|any|all|all_the|all_of_the|all_my|all_of_my|its|their",
    "one": "the|a|an|my|our|this|that|one|another",
    "short": "short|brief|quick|concise|small|full|whole|entire|complete|exact|plain|total|current|raw|simple|little",
    "new": "new|empty|blank|plain|simple|small|text|short",
    "me": "me|us|me_again|out|up|to_me|for_me|back",
    "show": "show|display|print|view|see|give|tell|present|return|report|output|let_me_see|let_me_know|get|fetch|"
    "retrieve|check|find_out|look_up|bring_up|pull_up",
    "save": "save|store|place|dump|record|export|keep|send|write|put|write_down|enter|type|set",
    "keep": "save|store|place|dump|export|keep|send",
    "word": "write|put|write_down|write_out|put_down|enter|type|set|record",
    "append": "append|add|log|note|note_down|jot_down|attach|record",
    "into": "to|into|in|inside|as|under|in_to|out_to",
    "onto": "to|onto|in|into|at_the_end_of|to_the_end_of|to_the_bottom_of|at_the_bottom_of|on_to|on|to_the_tail_of",
    "end": "at_the_end_of|to_the_end_of|to_the_bottom_of|at_the_bottom_of|onto_the_end_of",
    "make": "create|make|write|generate|add|start|produce|set_up|build|save|prepare|new|put_together",
    "with": "with|having|that_has|which_has|including|that_includes",
    "holding": "containing|that_contains|which_contains|that_says|which_says|saying|reading|that_reads|holding|"
    "that_holds|which_holds|which_reads|stating|that_states|whose_content_is|whose_contents_are|"
    "with_its_content_set_to|consisting_of|to_contain|to_hold|to_say",
    "in": "in|inside|within|from|under|of|into|below|beneath|underneath",
    "at": "in|inside|within|under|into|to",
    "contents": "contents|content|text|body|data|full_text",
    "summary": "summary|overview|digest|gist|synopsis|recap|tldr|tl;dr",
    "number": "number|count|amount|total_number|total",
    "lines": "lines|line|rows|row",
    "containing": "containing|contain|contains|with|mentioning|mention|mentions|including|include|includes|matching|"
    "match|that_contain|which_contain|that_contains|which_contains|that_mention|which_mention|that_mentions|"
    "that_include|which_include|that_match|having|that_have|that_has|which_have|have|that_say|where_it_says|about|"
    "with_the_word",
    "anything_with": "anything_about|anything_that_mentions|anything_that_contains|anything_mentioning|"
    "anything_containing|everything_about|everything_that_mentions|everything_that_contains|everything_mentioning|"
    "everything_containing",
    "occurrences": "occurrences_of|mentions_of|appearances_of|occurrences_of_the_word|mentions_of_the_word|"
    "occurrences_of_the_text|occurrences_of_the_phrase",
    "occur": "occur|occurs|appear|appears|mentioned|is_mentioned|come_up|comes_up|used|is_used|found|is_found",
    "contain": "contain|contains|mention|mentions|include|includes|match|have|hold|say",
    "files": "files|documents|file_names|filenames|names_of_files|names_of_the_files|files_and_folders|"
    "files_and_directories|entries|text_files",
    "file": "file|document|text_file",
    "which": "what|which|which_of_my|which_of_the|every",
    "term": "text|word|words|phrase|string",
    "named": "named|called|with_name|with_names|whose_name_is|whose_names_are|matching|like|that_match|"
    "that_are_called|with_the_name|whose_name_contains|whose_names_contain|with_names_like|whose_name_matches|"
    "whose_names_match|by_the_name_of|that_is_called",
    "todo": "todo|task|reminder|todo_item|todo_entry|todo_task|todo_note",
    "todos": "todos|tasks|reminders|todo_items|todo_list|task_list|list_of_todos|list_of_tasks|todo_tasks|"
    "list_of_things_to_do|things_to_do|tasks_list|todos_list|todo_entries",
    "todolist": "todo_list|todos|list_of_todos|tasks|task_list|list_of_tasks|reminders|todo|todos_list",
    "open": "open|current|unfinished|remaining|pending|outstanding|incomplete|active|undone|uncompleted|left|"
    "unfulfilled",
    "done": "completed|done|finished|closed|checked_off|ticked_off|complete",
    "saying": "to|:|for|about|called|named|saying|that_says|which_says|titled|with_the_text|reading|of|to_: |with_text",
    "info": "info|information|details|metadata|size|file_size|stats|properties|modification_date|modification_time|"
    "file_info|file_information|file_details|facts|date|age",
    "there": "there|available|here|present",
    "anywhere": "somewhere|anywhere|in_my_files|in_my_folders|somewhere_in_my_folders|anywhere_in_my_folders|"
    "somewhere_in_my_files|anywhere_in_my_files",
    "delete": "delete|remove|drop|erase|discard|clear|wipe|get_rid_of|scrap",
    "finish": "complete|finish|tick_off|check_off|cross_off|cross_out|finish_off",
    "finished": "done|complete|completed|finished|off|as_done|as_complete|as_completed|as_finished|off_as_done|"
    "as_being_done|to_done|closed|as_closed|resolved",
    "sum": "add|sum|add_up|sum_up|total|add_together|tally",
    "less": "subtract|deduct|take_away|minus|take_off",
    "calculate": "calculate|compute|evaluate|work_out|figure_out|solve|determine|find|get|do|tell_me|give_me|show_me|"
    "what_is|what_are|how_much_is|how_much_are|calc|what_does|whats|show|display|print",
    "copy": "copy|duplicate|clone|back_up|backup|replicate",
    "summarize": "summarize|summarise|sum_up|condense|recap|give_a_summary_of|tldr|tl;dr|boil_down",
    "read": "read|open|load|cat|view|look_at|look_inside|look_into|go_through|access|read_out|read_through",
    "fetch": "fetch|download|retrieve|get|visit|browse|scrape|crawl|curl|wget",
    "scan": "search|scan|look_in|look_through|look_inside|search_in|search_through|search_inside|check|go_through|grep|"
    "look_at|scan_through",
}

POLITE = [
    "please", "kindly", "pls", "plz", "hey", "hi", "hello", "hi there", "hello there", "hey there", "ok", "okay", "so",
    "well", "now", "just", "simply", "quickly", "right", "great", "good", "alright", "thanks", "thank you", "dear",
    "could you", "can you", "would you", "will you", "could you please", "can you please", "would you please",
    "would you mind", "would you be able to",
    "would you be so kind as to", "be so kind as to",
    "are you able to", "is it possible to", "could we", "can we", "can i", "may i", "could i", "i want you to",
    "i want to", "i'd like you to", "i'd like to", "i would like you to",
    "i would like to", "i need you to", "i need to", "i wish to", "you should", "you must", "you need to", "let's",
    "let us", "go ahead and", "go on and", "help me", "help me to", "try to", "try and", "make sure to",
    "make sure you",
    "be sure to", "do me a favor and", "do me a favour and", "your task is to", "your job is to", "the task is to",
    "use the calculator to", "use the calculator tool to", "use the filesystem to", "use the filesystem tool to",
    "use the file system to", "use the file tool to", "use the todo tool to", "use the text tool to",
    "use your tools to",
    "using the calculator", "using the filesystem", "using the filesystem tool", "using the text tool",
    "using the todo tool", "using your tools", "with the calculator", "i want", "i'd like", "i would like", "i need",
    "do the following", "do the following :", "do this", "do this :", "do these things :", "do the following things :",
    "do the following steps :", "follow these steps :", "follow these steps", "perform the following steps :",
    "perform the following :", "perform these steps :", "complete the following steps :", "steps :", "instructions :",
    "tasks :", "task :", "goal :", "plan :", "please :", "request :", "prompt :", "here is what i need :",
    "here is what i want :", "here are the steps :", "do these steps :", "execute the following steps :",
    "complete these steps :", "the following :", "assistant", "agent", "robot", "bot", "computer", "everyone", "there",
    "start by", "begin by", "proceed to", "continue by", "finish by", "end by", "also", "then", "next", "finally",
    "lastly", "afterwards", "afterward", "after that", "after this", "subsequently", "in the end", "at the end",
    "in addition", "additionally", "furthermore", "moreover", "and", "firstly", "secondly", "thirdly", "first of all",
    "to begin", "to start", "to start with", "to begin with", "once done", "when done", "once that is done",
    "when that is done", "once you are done", "when you are done", "when finished", "last of all", "last", "second",
    "third", "fourth", "fifth", "first", "as a next step", "as a last step", "as a first step", "followed by",
    "next up",
    "step one :", "step two :", "step three :", "step four :", "after", "besides", "immediately", "after which",
    "once you're done", "when you're done", "once that's done", "at last", "and then", ",", ":", "-", "for me",
    "if you would", "if you can", "if possible", "if you don't mind",
    "could you kindly", "can you kindly", "would you kindly", "could you also", "can you also",
    "can you just", "could you just", "can you now", "could you now", "i'd want you to", "you can", "you could",
]  # fmt: skip
"""Phrases before an instruction that change nothing. Connectives among them keep the order of the prompt."""

ASKING = frozenset({"could", "can", "would", "will", "are", "is", "may"})
"""First words of courtesies that are questions, so that a question mark at the end belongs to them."""

GERUND_AFTER = frozenset({"mind", "by", "after", "which", "with"})

TRAILING = [
    "please", "pls", "plz", "thanks", "thank you", "thank you very much", "thanks a lot", "many thanks", "for me",
    "for us", "now", "right now", "right away", "immediately", "as well", "too", "if you can", "if possible", "ok",
    "okay", "would you", "will you", "could you", "can you", "if you would", "at once", "quickly", "when you can",
    "if you please", "cheers", "thank you so much", "thanks so much", "thanks a bunch", "thanks a million", "thx",
    "ty", "much appreciated", "if you don't mind", "if you do not mind", "if that is ok", "if that's ok",
    "if that's okay", "when you have time", "when you have a moment", "when you have a minute",
    "when you get a chance", "when you get the chance", "if you have time", "if you have a moment",
    "as soon as possible", "asap", "would you please", "could you please", "can you please", "will you please",
    "pretty please", "please and thank you", "that would be great", "that would be nice", "that'd be great",
    "afterwards", "first", "next", "then", "thanks in advance", ",", "again", "-",
    "i don't need it anymore", "i don't need it any more", "i do not need it anymore", "i do not need it any more",
]  # fmt: skip
"""Phrases after an instruction that change nothing."""

THANKING = ("please", "pls", "plz", "thank", "thx", "ty", "many thanks", "much appreciated", "cheers")
"""Beginnings of those among them that are never the end of a todo."""

COURTESIES = frozenset({
    "", "thanks", "thank you", "thank you very much", "thanks a lot", "please", "cheers", "hi", "hello", "hey", "ok",
    "hello there", "hi there", "good morning", "good afternoon", "good evening", "many thanks", "thank you so much",
    "that is all", "that's all", "thanks in advance", "great", "thank you in advance", "much appreciated", "done",
    "have a nice day", "bye", "goodbye", "sorry", "excuse me", "i have a task for you", "i need some help",
    "i need your help", "i need help", "here is my request", "all good",
})  # fmt: skip

SEPARATORS = frozenset({",", "and", "then", ";", "&", "->"})
ORDER = word_set("then next finally lastly afterwards afterward subsequently after before also last additionally")
"""Words that join instructions and do not occur in ordinary content."""

NEGATIONS = word_set(
    "not never without don't dont do'nt won't wont can't cannot cant shouldn't shouldnt mustn't didn't doesn't doesnt "
    "isn't nothing neither nor except avoid refrain skip stop aren't wouldn't couldn't"
)
CONDITIONS = word_set("if unless but otherwise else whether instead whenever while until however although only")

UNSUPPORTED = {
    "email": "mail", "e-mail": "mail", "mail": "mail", "tweet": "mail", "text": "mail", "message": "mail",
    "download": "web", "upload": "web", "browse": "web", "visit": "web", "google": "web", "crawl": "web",
    "scrape": "web", "navigate": "web", "post": "web", "curl": "web", "wget": "web", "ping": "web",
    "run": "run", "execute": "run", "install": "run", "deploy": "run", "launch": "run", "compile": "run",
    "sudo": "run", "kill": "run", "reboot": "run", "shutdown": "run", "restart": "run", "pip": "run",
    "chmod": "file", "unlink": "file", "truncate": "file",
    "wipe": "file", "destroy": "file", "purge": "file", "format": "file", "zip": "file", "unzip": "file",
    "compress": "file", "encrypt": "file", "decrypt": "file", "sort": "file", "edit": "file", "modify": "file",
    "prepend": "file", "convert": "file", "rewrite": "file", "reverse": "file", "empty": "file",
    "share": "mail", "upgrade": "run", "reset": "file",
    "translate": "model", "explain": "model", "describe": "model", "analyze": "model", "analyse": "model",
    "compare": "model", "draft": "model", "compose": "model", "invent": "model", "generate": "model",
    "paraphrase": "model", "classify": "model", "answer": "model", "brainstorm": "model", "improve": "model",
    "proofread": "model", "review": "model", "draw": "model", "schedule": "mail", "book": "mail", "order": "mail",
    "buy": "mail", "ignore": "model", "disregard": "model", "forget": "model", "pretend": "model", "act": "model",
    "drop": "file", "exfiltrate": "web", "wait": "run", "sleep": "run", "repeat": "run", "undo": "file",
    "revert": "file", "restore": "file", "approve": "run", "grant": "run", "disable": "run", "enable": "run",
}  # fmt: skip
"""Verbs that people use with agents and that no built-in tool can do, with what they would need."""

NEEDS = {
    "mail": "asks for something that no built-in tool does: there is none for messages, calendars or orders",
    "web": "asks for something that no tool does: a web page can only be read, as in "
    "'fetch https://example.com', where the tool registry lists a server that fetches pages",
    "run": "asks for something that no built-in tool does: there is none that runs or controls programs",
    "file": "asks for something that no built-in tool does: files can be read, written whole, appended to, copied, "
    "moved, deleted, listed and searched, not changed in other ways",
    "model": "asks for something that takes a language model",
    "time": "asks for the time of day, which no built-in tool tells; today's date can be looked up",
}

_DELETE = (
    "is not understood: files are deleted by their names, as in 'delete notes.txt', and todos by a number, "
    "by their whole text, or as in 'delete all completed todos'; folders are not deleted"
)
_MOVE = (
    "is not understood: say which file goes where, as in 'move a.txt to b.txt', 'move a.txt to the docs folder' or "
    "'rename a.txt to b.txt'"
)
_COPY = "is not understood: say where the copy goes, as in 'copy a.txt to b.txt' or 'copy a.txt to the docs folder'"
HINTS = {
    "delete": _DELETE, "remove": _DELETE, "erase": _DELETE, "clear": _DELETE, "move": _MOVE, "rename": _MOVE,
    "copy": _COPY, "duplicate": _COPY, "clone": _COPY, "backup": _COPY, "back": _COPY,
}  # fmt: skip
"""What can be said with a verb that has only these forms."""

CONTENT_WORDS = word_set(
    "buy book order post message text answer review share reset drop book act wait sleep run repeat empty move "
    "describe explain draw approve improve forget"
)
"""Those of the verbs above that `and` joins to ordinary content too (`call Anna and book a table`)."""

GENERATIVE = word_set(
    "haiku haikus poem poems story stories essay essays joke jokes song songs lyrics article articles report reports "
    "letter letters email emails e-mail blog post speech speeches novel tale limerick sonnet rhyme tweet tweets script "
    "code program function summary summaries description explanation analysis review recipe recipes outline draft "
    "introduction conclusion abstract paragraph paragraphs sentences lines facts ideas tips examples list quote quotes "
    "proverb slogan biography plan agenda translation answer answers advice opinion numbers names random lorem ipsum "
    "something anything stuff whatever"
)
"""Nouns for texts that somebody would have to write."""

NOUN_VERBS = word_set(
    "move delete remove "
    "list count copy note log sum total square double half cat head plus minus times store mark check show view record "
    "print place new start number find search close cross put keep load set order type report output display export "
    "present dump todo another one text post message book look tally backup clone duplicate stat triple "
    "cube round raise "
    "reduce build use open see get give tell take do fetch return"
)
"""Verbs that are ordinary words too: after `and` or a comma they begin an instruction only before an object."""

OBJECT_STARTS = word_set(
    "the a an my our this that it them its their these those all any some me us what how which another todo todos task "
    "tasks files words lines result results contents to one up in for about both everything half twice file folder "
    "directory by into from down as todolist back characters everything"
)

PARTICLES = word_set("down up out")
"""Words that belong to a verb, as in `write down`; with a capital they begin a text."""

MARKS = word_set(
    "number digits value message text line sentence words word phrase string note content contents "
    "greeting letters body"
)
"""Nouns that announce the exact text: `the message HELLO`."""

SAYING = frozenset({
    ("saying",), ("that", "says"), ("which", "says"), ("that", "reads"), ("which", "reads"), ("reading",), (":",),
    ("stating",), ("that", "states"), ("with", "the", "text"), ("with", "the", "message"), ("to", "say"), ("says",),
    ("containing",), ("with", "text"), ("with", "the", "words"), ("that", "is"), ("which", "is"),
    ("of", ":"), ("as", ":"),
    ("that", "say"), ("consisting", "of"), ("is",), ("=",),
})  # fmt: skip

DETERMINERS = word_set(
    "a an the my your his her our their its some any all every each this that these those another both no "
    "today's yesterday's tomorrow's several many few two three four five six seven eight nine ten"
)
PRONOUNS = word_set(
    "it its itself them themselves this that these those both all each every everything everyone everybody either "
    "neither any anything anyone some something someone none nothing many most few several others mine yours"
)
"""Words that only point at something: alone, they are never a text of their own."""
POINTING_ON = word_set("of the a two three four five one ones other rest same else together lot way me us you")
"""Words beside them that add nothing: `both of them`, `all three`."""
ATTRIBUTES = word_set(
    "permission permissions mode owner ownership group encoding size compression encryption access rights headers "
    "header title name extension format date time timestamp metadata tags tag version template indentation columns "
    "rows lines words characters spaces tabs newline newlines backup utf-8 utf8 ascii"
)
"""Properties that a file may be made with, other than a text."""
FINITE = word_set("is are was were am has have had will can must should does do did isn't works")
QUESTION_WORDS = word_set("what how why who whom whose which when where whatever")

FILE_TYPES = {
    "markdown": "md", "python": "py", "yaml": "yaml", "json": "json", "csv": "csv", "log": "log", "html": "html",
    "md": "md", "txt": "txt", "py": "py", "yml": "yml", "xml": "xml", "pdf": "pdf", "text": "txt", "toml": "toml",
    "javascript": "js", "js": "js", "css": "css", "sql": "sql", "rst": "rst", "tsv": "tsv", "ini": "ini",
}  # fmt: skip
PLAIN_FILES = word_set("readme license licence makefile dockerfile changelog justfile todo.txt contributing")


def keys_of(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Return the forms of these tokens that the grammar compares."""
    return tuple(token.key for token in tokens)
