"""The totals beside the rows that they count. Nothing may be pruned before."""

DIFFERENCES = """
WITH kept (name, labels, number) AS (
    SELECT 'commands', ARRAY[outcome, coalesce(code, '')], count(*) FROM outcomes GROUP BY outcome, code
    UNION ALL
    SELECT 'tries', ARRAY[kind, result], count(*)
    FROM tries JOIN effects ON effects.id = effect_id
    WHERE result IS NOT NULL
    GROUP BY kind, result
    UNION ALL
    SELECT 'effects', ARRAY[kind, state], count(*)
    FROM effects
    WHERE state IN ('done', 'failed', 'superseded', 'cancelled')
    GROUP BY kind, state
), told (name, labels, number) AS (
    SELECT name, labels, sum(value) FROM totals WHERE name IN ('commands', 'tries', 'effects') GROUP BY name, labels
)
SELECT name, labels, kept.number AS kept, told.number AS told
FROM kept
FULL JOIN told USING (name, labels)
WHERE coalesce(kept.number, 0) <> coalesce(told.number, 0)
ORDER BY name, labels
"""
"""What differs: its name, its labels, how many rows are kept, and what the total says."""
