-- A write load for pgbench on shop.sql: money goes from one account to another, and an event tells of it.
-- What the view "invariants" says stays true at every commit.
\set giver random(1, 39999)
\set taker random(:giver + 1, 40000)
\set cents random(-5000, 5000)
BEGIN;
UPDATE accounts SET balance_cents = balance_cents - :cents WHERE customer_id = :giver;
UPDATE accounts SET balance_cents = balance_cents + :cents WHERE customer_id = :taker;
INSERT INTO events (kind, customer_id, other_id, amount_cents) VALUES ('transfer', :giver, :taker, :cents);
COMMIT;
