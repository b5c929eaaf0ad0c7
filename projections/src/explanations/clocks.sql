-- A person's punches that show a day and truly are of another, or the other way round.
--   $1 employee   $2 from   $3 until   $4 the most listed   $5 the most counted
select kept.*, count(*) over () as found
from (
    (select t.punch, t.kind, t.captured_at, judged.true_at, t.site, t.device, t.standing,
         true as of_this_day
     from judged_punches judged join read.timeline t on t.punch = judged.punch
     where judged.employee = $1 and judged.true_at >= $2 and judged.true_at < $3
     and t.employee = $1 and t.effective_at = t.captured_at
     and not (t.captured_at >= $2 and t.captured_at < $3)
     and t.standing not in ('rejected', 'voided')
     limit $5)
    union all
    (select t.punch, t.kind, t.captured_at, judged.true_at, t.site, t.device, t.standing,
         false as of_this_day
     from read.timeline t join judged_punches judged on judged.punch = t.punch
     where t.employee = $1 and t.effective_at >= $2 and t.effective_at < $3
     and t.effective_at = t.captured_at
     and not (judged.true_at >= $2 and judged.true_at < $3)
     and t.standing not in ('rejected', 'voided')
     limit $5)
    limit $5) kept
order by captured_at, punch
limit $4
