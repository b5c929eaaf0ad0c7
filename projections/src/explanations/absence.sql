-- The devices of some sites, with what is known of what they may still hold. Times are whole
-- milliseconds since 1970.
--   $1 sites   $2 the most devices   $3 the most runs of missing numbers a device
select d.device, d.site, n.name,
    floor(extract(epoch from r.reported_at) * 1000)::bigint as reported_ms,
    r.outbox,
    floor(extract(epoch from r.oldest) * 1000)::bigint as oldest_ms,
    r.seq,
    coalesce(p.acked_through, 0) as acked_through,
    coalesce(p.highest, 0) as highest,

    (select json_build_array(m.position, floor(extract(epoch from m.recorded_at) * 1000)::bigint)
     from read.explanation_marks m
     where m.device = d.device and m.seq = 0
     order by m.position limit 1) as revoked,

    -- The newest first: a punch that is missed was mostly made lately. The punches held before and
    -- after bound the time of what is missing between them.
    (select json_agg(json_build_array(
         g.from_seq, g.to_seq, g.noticed, floor(extract(epoch from g.noticed_at) * 1000)::bigint,
         (select floor(extract(epoch from t.captured_at) * 1000)::bigint
          from device_chain c join read.timeline t on t.punch = c.punch
          where c.device = d.device and c.seq = g.from_seq - 1
          order by c.position limit 1),
         (select floor(extract(epoch from t.captured_at) * 1000)::bigint
          from device_chain c join read.timeline t on t.punch = c.punch
          where c.device = d.device and c.seq = g.to_seq + 1
          order by c.position limit 1)))
     from (select * from read.explanation_gaps
           where device = d.device and came is null
           order by from_seq desc limit $3 + 1) g) as missing
from (select distinct on (device) device, site
      from device_sites
      where site = any($1)
      order by device, ordinal desc) d
left join device_directory n on n.device = d.device
left join device_reports r on r.device = d.device
left join device_progress p on p.device = d.device
order by n.name, d.device
limit $2
