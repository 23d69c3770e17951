"""Anything that somebody may do to a transcript, possible or not."""

from hypothesis import strategies as st

from sidecar.transcripts import transcript_edits

words = st.sampled_from(["do", "you", "hear", "me", "Nagg", "now?", "你好", "-->", "[Music]"])
lines = st.lists(words, min_size=1, max_size=8).map(" ".join)
names = st.none() | st.sampled_from(["Nell", "Old Nagg", "a & b <c>", "你" * 60, "--> x"])
indices = st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True).map(
    lambda given: tuple(sorted(given))
)
speakers = st.integers(0, 3)
operations = st.one_of(
    st.builds(transcript_edits.RenameSpeaker, speakers, names),
    st.builds(transcript_edits.MergeSpeakers, speakers, speakers),
    st.builds(transcript_edits.SplitSegments, indices, names),
    st.builds(transcript_edits.MoveSegments, indices, speakers),
    st.builds(transcript_edits.RewriteSegment, st.integers(0, 5), lines),
)
lists = st.lists(operations, min_size=1, max_size=3).map(tuple)
steps: st.SearchStrategy[transcript_edits.EditStep] = st.one_of(
    lists, lists, st.just(transcript_edits.UndoStep()), st.just(transcript_edits.RedoStep())
)
