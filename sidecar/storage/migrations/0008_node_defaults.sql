-- Nodes are told no more what to load. The columns for that stay, with defaults, for
-- services of the release before that run beside this one during an update.
ALTER TABLE vibevoice.nodes ALTER name SET DEFAULT '', ALTER generation SET DEFAULT 0,
    ALTER state SET DEFAULT '', ALTER code SET DEFAULT '', ALTER model SET DEFAULT '',
    ALTER precision SET DEFAULT '';
