-- One doubt of a kind about a punch is enough: without this, a thousand punches of one person within the
-- near-duplicate window made a doubt for every pair. Rows from before count as not doubted, and may be
-- doubted once more.
alter table judged_punches
    add column near_duplicate boolean not null default false,
    add column two_sites boolean not null default false;

-- Serves: noting that a punch was voided or doubted, in the same time however many punches there are.
create index judged_punches_punch on judged_punches (punch);
