-- Everything that is asked of one person's chats begins with which there are: the panel, the history page, a search, a send. Rows of one
-- person lie scattered in order of beginning, and with a million chats finding them meant going through all: half of a first search.
CREATE INDEX chats_by_account ON chats (account_id);
