-- The line of punches that wait for their identity check, and those that it could not be made of.
-- A row says which punch, nothing more; what became of it stands in the ledger. So nothing that is
-- lost here is lost for good: whoever fills the line can fill it again.

create table check_queue (
    punch    uuid primary key,
    -- Since when it stands in line.
    sent_at  timestamptz not null default now(),
    -- From when on it may be taken: its sending, what it was put off to, or the end of a lease.
    due_at   timestamptz not null default now(),
    -- Of whoever has it in hand, or had it when the lease ran out; null in the line.
    receipt  uuid,
    -- How often it was taken without being done, being put off not counted.
    receives integer not null default 0 check (receives >= 0),
    -- It was sent again while in hand: once done it stands in line anew.
    again    boolean not null default false,
    -- What was last said of why it failed.
    error    text
);
-- Serves taking what is due, the longest due first.
create index check_queue_due_at on check_queue (due_at);
-- Serves how many are in hand, few of many.
create index check_queue_in_hand on check_queue (due_at) where receipt is not null;
-- Serves the age of the oldest.
create index check_queue_sent_at on check_queue (sent_at);

create table check_dead_letters (
    punch    uuid primary key,
    sent_at  timestamptz not null,
    receives integer not null check (receives >= 0),
    reason   text not null,
    died_at  timestamptz not null default now()
);
-- Serves the page of them, the newest first.
create index check_dead_letters_died_at on check_dead_letters (died_at);

grant select, insert, update, delete on check_queue, check_dead_letters to punchtrail_writer;
grant select on check_queue, check_dead_letters to punchtrail_reader;

-- Each taking makes a dead row and dead entries of the indexes, which a scan from the front walks
-- over: swept sooner than by default, which waits for a fifth of the table.
alter table check_queue
    set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
