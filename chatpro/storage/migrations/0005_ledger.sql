-- Each reservation and each settlement changes its account's counter, among everybody's of every month: a primary key of two columns finds no rows.
CREATE INDEX cycles_by_account ON cycles (account_id);
