"""Citations: the file's name, the passage, and the place in the answer."""

from __future__ import annotations

from worker.protocols import assistants_replies, responses_replies
from worker.protocols.citations import LONGEST_QUOTE, Passage, passages, resolved

DELIVERY = "Delivery takes three days."
RETURNS = "You may return goods within thirty days."


def test_the_passage_that_speaks_of_the_same_is_quoted() -> None:
    text = "Goods may be returned within thirty days. Delivery takes three days."
    found = [Passage("file-1", "faq.md", DELIVERY, 0.9), Passage("file-1", "faq.md", RETURNS, 0.4)]
    (first, second) = resolved(
        [
            {"type": "file_citation", "file_id": "file-1", "index": 40},
            {"type": "file_citation", "file_id": "file-1", "index": len(text)},
        ],
        text,
        found[:1] + found[1:],
    )
    assert first == {
        "type": "file_citation",
        "file_id": "file-1",
        "index": 40,
        "filename": "faq.md",
        "quote": RETURNS,
        "score": 0.4,
    }
    assert second["filename"] == "faq.md"


def test_a_file_that_no_search_has_found_keeps_what_is_known() -> None:
    citation = {"type": "file_citation", "file_id": "file-2", "filename": "a.md"}
    assert resolved([citation], "x", [Passage("file-1", "b.md", "y", 1.0)]) == (citation,)
    other = {"type": "url_citation", "url": "https://x.test"}
    assert resolved([other], "x", []) == (other,)


def test_of_a_long_passage_its_best_paragraph_is_quoted() -> None:
    long = "\n\n".join(["word " * 150, RETURNS, "other " * 150])
    (citation,) = resolved(
        [{"type": "file_citation", "file_id": "f"}], "You may return goods.", [Passage("f", None, long, None)]
    )
    assert citation["quote"] == RETURNS
    (cut,) = resolved([{"type": "file_citation", "file_id": "f"}], "x", [Passage("f", None, "y" * 5000, None)])
    assert len(cut["quote"]) == LONGEST_QUOTE


def test_both_shapes_of_results_are_read() -> None:
    flat = passages([{"file_id": "f", "filename": "a.md", "text": "t", "score": 1}])
    nested = passages([{"file_id": "f", "file_name": "a.md", "score": 1.0, "content": [{"type": "text", "text": "t"}]}])
    assert flat == nested == [Passage("f", "a.md", "t", 1.0)]
    assert passages(None) == []


def test_an_answer_of_responses_has_names_and_quotes() -> None:
    answer = responses_replies.read_answer(
        [
            {
                "type": "file_search_call",
                "results": [{"file_id": "f", "filename": "faq.md", "text": RETURNS, "score": 0.7}],
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "text": "Within thirty days.",
                        "annotations": [{"type": "file_citation", "file_id": "f", "filename": "faq.md", "index": 18}],
                    }
                ],
            },
        ],
        model=None,
        usage=None,
    )
    assert answer.citations[0]["quote"] == RETURNS


def test_an_answer_of_assistants_has_names_quotes_and_places() -> None:
    def part(value: str, *marks: str) -> dict[str, object]:
        notes = [
            {
                "type": "file_citation",
                "text": mark,
                "start_index": value.index(mark),
                "end_index": value.index(mark) + len(mark),
                "file_citation": {"file_id": "f"},
            }
            for mark in marks
        ]
        return {"type": "text", "text": {"value": value, "annotations": notes}}

    answer = assistants_replies.read_answer(
        [
            {"role": "assistant", "content": [part("First.")]},
            {
                "role": "assistant",
                "content": [
                    part(
                        "Within thirty days 【4:0†faq.md】, not more【4:1†faq.md】.", "【4:0†faq.md】", "【4:1†faq.md】"
                    )
                ],
            },
        ],
        [
            {
                "step_details": {
                    "tool_calls": [
                        {
                            "type": "file_search",
                            "file_search": {
                                "results": [
                                    {
                                        "file_id": "f",
                                        "file_name": "faq.md",
                                        "score": 0.5,
                                        "content": [{"text": RETURNS}],
                                    }
                                ]
                            },
                        }
                    ]
                }
            }
        ],
        model=None,
        usage=None,
    )
    assert answer.text == "First.\n\nWithin thirty days, not more."
    assert [citation["index"] for citation in answer.citations] == [26, 36]
    assert answer.text[:26].endswith("thirty days")
    assert {citation["quote"] for citation in answer.citations} == {RETURNS}
    assert {citation["filename"] for citation in answer.citations} == {"faq.md"}
