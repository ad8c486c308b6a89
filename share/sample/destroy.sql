-- What nobody would dare to run on the real thing. The quickstart runs it on a branch.
SET client_min_messages = warning;
UPDATE customers SET email = 'nobody' || id || '@example.invalid', card_number = '4000000000000002';
UPDATE accounts SET balance_cents = 0;
DELETE FROM events WHERE id % 2 = 0;
TRUNCATE order_lines;
DROP TABLE products CASCADE;
