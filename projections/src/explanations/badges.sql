-- Punches of a day by badges that nobody held when they were made, and why they may be somebody's.
--   $1 employee   $2 the employee's sites   $3 from   $4 until   $5 whether the day lacks a punch
--   $6 the most listed   $7 the most counted
with mine as materialized (select number, held_from, held_until from badge_holdings where employee = $1),
found as (
    select punch from read.timeline
    where site = any($2) and effective_at >= $3 and effective_at < $4 and employee is null
    union
    -- By a badge of the employee's, at whichever site; by its true time.
    select judged.punch
    from (select distinct number from mine) held
    join judged_punches judged on judged.badge = held.number and judged.employee is null
        and judged.true_at >= $3 and judged.true_at < $4
),
told as (
    select t.punch, t.kind, t.effective_at, t.site, t.device, t.standing,
        case
            when exists (select from mine where number = read_then.badge
                         and held_from <= read_then.true_at
                         and (held_until is null or held_until > read_then.true_at)) then 'held'
            -- Somebody else's, who will be found.
            when exists (select from badge_holdings other where other.number = read_then.badge
                         and other.held_from <= read_then.true_at
                         and (other.held_until is null or other.held_until > read_then.true_at)) then null
            when exists (select from mine where number = read_then.badge) then 'held_otherwise'
            when $5 and t.site = any($2) then 'here'
        end as tie
    from found
    join read.timeline t using (punch)
    left join lateral (select badge, true_at from judged_punches judged
                       where judged.punch = t.punch limit 1) read_then on true
    where t.employee is null and t.standing not in ('rejected', 'voided')
)
select kept.*, count(*) over () as found
from (select * from told where tie is not null order by effective_at, punch limit $7) kept
order by array_position(array['held', 'held_otherwise', 'here'], tie), effective_at, punch
limit $6
