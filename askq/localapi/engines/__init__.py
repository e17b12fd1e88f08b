"""Who answers: `tutor`, `chat` or `script`, behind the interface of `askq.localapi.engines.base`."""
