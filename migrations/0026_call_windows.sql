-- How often somebody called, in a window that slides: a row a caller, calls counted by buckets, the newest first. The
-- bucket that the window's far end lies in is counted whole, so that never more are let in within any window than may
-- be, and nobody is refused longer than a bucket beyond what an exact log would do.
create table call_windows (
    kind text not null,
    caller text not null,
    -- The number of the newest bucket: seconds since 1970 by the length of one.
    newest bigint not null,
    counts integer[] not null,
    -- When none of them is in the window any more.
    over_at timestamptz not null,
    primary key (kind, caller)
);

grant select, insert, update, delete on call_windows to punchtrail_writer;

-- Counts as many of `asked` calls as fit, at most `most` within `buckets` of `bucket_s` seconds. With none asked it
-- only looks. `held` is how many are counted then, `fits_s` when the next one fits, `now_s` the time that it went by:
-- the database's, read once nobody else counts the same caller, and never before what was counted last. `at_s` is a
-- test's time.
create function count_calls(of_kind text, of_caller text, asked integer, most integer, bucket_s integer,
    buckets integer, at_s bigint default null)
    returns table (granted integer, held integer, fits_s bigint, now_s bigint) language plpgsql as $$
declare
    found_newest bigint;
    bucket bigint;
    tally integer[];
    gone integer;
    place integer;
begin
    if asked > 0 then
        insert into call_windows (kind, caller, newest, counts, over_at)
            values (of_kind, of_caller, 0, '{}', clock_timestamp() + interval '1 day')
            on conflict do nothing;
        select newest, counts into found_newest, tally from call_windows
            where kind = of_kind and caller = of_caller for update;
    else
        select newest, counts into found_newest, tally from call_windows where kind = of_kind and caller = of_caller;
    end if;
    now_s := coalesce(at_s, floor(extract(epoch from clock_timestamp()))::bigint);
    bucket := greatest(now_s / bucket_s, coalesce(found_newest, 0));
    gone := least(bucket - coalesce(found_newest, 0), buckets + 1);
    if tally is null or tally = '{}' or gone > buckets then
        tally := array_fill(0, array[1]);
    elsif gone > 0 then
        tally := (array_fill(0, array[gone]) || tally)[1:buckets + 1];
    end if;
    select sum(one) into held from unnest(tally) as one;
    granted := least(asked, greatest(most - held, 0));
    if granted > 0 then
        tally[1] := tally[1] + granted;
        held := held + granted;
        update call_windows set newest = bucket, counts = tally,
            over_at = clock_timestamp() + make_interval(secs => (buckets + 1) * bucket_s) where kind = of_kind and caller = of_caller;
    end if;
    fits_s := now_s;
    if held >= most then
        -- Whole buckets leave, the oldest first, until there is room.
        gone := held;
        place := array_length(tally, 1);
        while place > 1 and gone - tally[place] >= most loop
            gone := gone - tally[place];
            place := place - 1;
        end loop;
        fits_s := (bucket - (place - 1) + buckets + 1) * bucket_s;
    end if;
    return next;
end $$;

revoke execute on function count_calls(text, text, integer, integer, integer, integer, bigint) from public;
grant execute on function count_calls(text, text, integer, integer, integer, integer, bigint) to punchtrail_writer;
