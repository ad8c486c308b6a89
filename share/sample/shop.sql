-- A shop with about 1,000,000 rows, for trying Bough out. The same rows every time, on one version of PostgreSQL.
--
--   psql -1 -q -v ON_ERROR_STOP=1 -f shop.sql
--
-- Nobody in here exists: e-mail addresses are of example.com and its like, card numbers are of test ranges
-- (they pass the Luhn check, no bank issues them). What always holds is in the view "invariants"; transfer.sql
-- is a load for pgbench that keeps it true.

SET client_min_messages = warning;
SET timezone = 'UTC';
SET max_parallel_workers_per_gather = 0; -- one process draws the random numbers, so they come in order
SELECT setseed(0.42) \g /dev/null

CREATE FUNCTION luhn_digit(body text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    -- the digit that makes body || digit pass: from the right, every other digit counts double
    SELECT ((10 - sum(CASE WHEN i % 2 = 0 THEN d ELSE d * 2 / 10 + d * 2 % 10 END) % 10) % 10)::text
    FROM generate_series(1, length(body)) i, LATERAL (SELECT substr(reverse(body), i, 1)::int) digit(d)
$$;

CREATE FUNCTION luhn_holds(number text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT public.luhn_digit(left(number, -1)) = right(number, 1)
$$;

CREATE TABLE customers (
    id integer PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    card_number text NOT NULL CHECK (luhn_holds(card_number)),
    created_at timestamptz NOT NULL
);
CREATE TABLE accounts (
    customer_id integer PRIMARY KEY,
    opening_cents bigint NOT NULL,
    balance_cents bigint NOT NULL
) WITH (fillfactor = 90);
CREATE TABLE products (
    id integer PRIMARY KEY,
    sku text NOT NULL UNIQUE,
    title text NOT NULL,
    price_cents integer NOT NULL CHECK (price_cents > 0)
);
CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer_id integer NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'paid', 'shipped', 'returned')),
    line_count integer NOT NULL,
    placed_at timestamptz NOT NULL
);
CREATE TABLE order_lines (
    order_id bigint NOT NULL,
    line_no integer NOT NULL,
    product_id integer NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    price_cents integer NOT NULL
);
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    customer_id integer NOT NULL,
    other_id integer,     -- of a transfer: who gets what customer_id gives
    amount_cents bigint
);

INSERT INTO customers
SELECT id, first || ' ' || last, lower(first || '.' || last) || id || '@example.' || domain,
       body || luhn_digit(body), timestamptz '2026-01-01' - age * interval '1 day'
FROM (SELECT id,
             (ARRAY['Ada','Amir','Anna','Ben','Chen','Clara','David','Elena','Emil','Fatima','Grace','Hiro','Ida',
                    'Ivan','Jonas','Julia','Kofi','Lea','Liam','Lucia','Maja','Marta','Nils','Noor','Olga','Omar',
                    'Paul','Priya','Rosa','Sven','Tara','Yuki'])[1 + floor(random() * 32)::int] AS first,
             (ARRAY['Andersen','Bauer','Berg','Costa','Diaz','Dubois','Eriksen','Fischer','Garcia','Haddad','Ito',
                    'Jansen','Kaya','Khan','Kim','Kowalski','Larsen','Lopez','Meyer','Moreau','Nakamura','Nguyen',
                    'Novak','Okafor','Patel','Rossi','Santos','Schmidt','Silva','Tanaka','Weber','Wong'
                   ])[1 + floor(random() * 32)::int] AS last,
             (ARRAY['com','net','org'])[1 + floor(random() * 3)::int] AS domain,
             (ARRAY['400000','555555'])[1 + floor(random() * 2)::int]
             || lpad(floor(random() * 1e9)::bigint::text, 9, '0') AS body,
             random() * 1500 AS age
      FROM generate_series(1, 40000) id) drawn;

INSERT INTO accounts
SELECT id, cents, cents
FROM (SELECT id, floor(random() * 500000)::bigint AS cents FROM generate_series(1, 40000) id) drawn;

INSERT INTO products
SELECT id, 'SKU-' || lpad(id::text, 5, '0'), colour || ' ' || material || ' ' || thing, 100 + floor(random() * 20000)
FROM (SELECT id,
             (ARRAY['Black','Blue','Green','Grey','Red','White'])[1 + floor(random() * 6)::int] AS colour,
             (ARRAY['cotton','glass','leather','linen','oak','steel'])[1 + floor(random() * 6)::int] AS material,
             (ARRAY['bag','bowl','chair','cup','desk','lamp','shelf','vase'])[1 + floor(random() * 8)::int] AS thing
      FROM generate_series(1, 2000) id) drawn;

INSERT INTO orders
SELECT id, 1 + floor(power(random(), 2) * 40000)::int, -- some buy a lot
       (ARRAY['open','paid','shipped','shipped','shipped','shipped','returned'])[1 + floor(random() * 7)::int],
       1 + floor(random() * 4)::int, timestamptz '2026-01-01' - random() * interval '1000 days'
FROM generate_series(1, 200000) id;

INSERT INTO order_lines
SELECT d.order_id, d.line_no, d.product_id, d.quantity, p.price_cents
FROM (SELECT o.id AS order_id, line_no, 1 + floor(random() * 2000)::int AS product_id,
             1 + floor(power(random(), 3) * 5)::int AS quantity
      FROM orders o, generate_series(1, o.line_count) line_no) d
JOIN products p ON p.id = d.product_id;

INSERT INTO events (at, kind, customer_id)
SELECT timestamptz '2026-01-01' - random() * interval '90 days',
       (ARRAY['login','login','view','view','view','search','cart'])[1 + floor(random() * 7)::int],
       1 + floor(power(random(), 2) * 40000)::int
FROM generate_series(1, 250000);

ALTER TABLE accounts ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE order_lines ADD PRIMARY KEY (order_id, line_no);
ALTER TABLE order_lines ADD FOREIGN KEY (order_id) REFERENCES orders;
ALTER TABLE order_lines ADD FOREIGN KEY (product_id) REFERENCES products;
ALTER TABLE events ADD FOREIGN KEY (customer_id) REFERENCES customers;
CREATE INDEX orders_customer ON orders (customer_id);
CREATE INDEX orders_placed ON orders (placed_at);
CREATE INDEX order_lines_product ON order_lines (product_id);
CREATE INDEX events_customer ON events (customer_id, at);

CREATE VIEW invariants AS
WITH moves AS (
    SELECT customer_id, -amount_cents AS cents FROM events WHERE kind = 'transfer'
    UNION ALL
    SELECT other_id, amount_cents FROM events WHERE kind = 'transfer'
), moved AS (
    SELECT customer_id, sum(cents) AS cents FROM moves GROUP BY customer_id
)
SELECT 'the balances add up to what was opened' AS invariant,
       (SELECT sum(balance_cents) = sum(opening_cents) FROM accounts) AS holds
UNION ALL
SELECT 'each balance is what was opened and what was moved',
       NOT EXISTS (SELECT FROM accounts a LEFT JOIN moved m USING (customer_id)
                   WHERE a.balance_cents <> a.opening_cents + coalesce(m.cents, 0))
UNION ALL
SELECT 'each order has as many lines as it says',
       NOT EXISTS (SELECT FROM orders o LEFT JOIN (SELECT order_id, count(*) FROM order_lines GROUP BY order_id) l
                   ON l.order_id = o.id WHERE o.line_count IS DISTINCT FROM l.count);

ANALYZE customers, accounts, products, orders, order_lines, events;
