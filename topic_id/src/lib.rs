//! The id of a Kafka topic (KIP-516): the one thing that differs between a topic and another one of its name.
//!
//! `rdkafka` has no safe wrapper of `DescribeTopics`, so this crate calls librdkafka. It does nothing else: it is the
//! only place of Bifold with unsafe code.

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};

/// How much longer than the request the answer is waited for: the request's own timeout is what normally ends it.
const GRACE_MS: i32 = 1_000;

/// The id of a topic, `None` when the broker says that there is no such topic. Blocks for at most `timeout` and a second.
///
/// # Errors
/// In words: no broker answered in time, the name is none, or the broker refused.
#[expect(unsafe_code, reason = "rdkafka has no safe wrapper of DescribeTopics")]
pub fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<[u8; 16]>, String> {
    let wait_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let name = CString::new(topic).map_err(|_| "the name has a NUL".to_owned())?;
    let mut names = [name.as_ptr()];
    let mut text = [0; 256];
    // SAFETY: the client outlives the call. Queue, options and collection are made here, are not null for valid
    // arguments (their constructors only allocate), and are destroyed once each; the event owns the result, is read
    // while it lives, and is destroyed after that. `names` and `name` outlive the collection, which copies them.
    unsafe {
        let kafka = client.native_ptr();
        let queue = rd::rd_kafka_queue_new(kafka);
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
        let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = rd::rd_kafka_AdminOptions_new(kafka, operation);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, text.as_mut_ptr(), text.len());
        rd::rd_kafka_DescribeTopics(kafka, topics, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, wait_ms.saturating_add(GRACE_MS));
        let found = if event.is_null() { Err("no answer in time".to_owned()) } else { id_in(event) };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(topics);
        rd::rd_kafka_queue_destroy(queue);
        found
    }
}

/// Reads the one description in an answer.
///
/// # Safety
/// `event` is a live event.
#[expect(unsafe_code, reason = "rdkafka has no safe wrapper of DescribeTopics")]
unsafe fn id_in(event: *mut rd::rd_kafka_event_t) -> Result<Option<[u8; 16]>, String> {
    const NO_ERROR: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    const UNKNOWN: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    // SAFETY: the event lives; what is reached from it lives as long; every pointer that may be null is checked, and
    // strings of librdkafka are static or live with the event.
    unsafe {
        let code = rd::rd_kafka_event_error(event);
        if code != NO_ERROR {
            return Err(words(rd::rd_kafka_err2str(code)));
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("not an answer to DescribeTopics".to_owned());
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count != 1 {
            return Err(format!("{count} topics in the answer"));
        }
        let error = rd::rd_kafka_TopicDescription_error(*topics);
        if !error.is_null() && rd::rd_kafka_error_code(error) == UNKNOWN {
            return Ok(None);
        }
        if !error.is_null() && rd::rd_kafka_error_code(error) != NO_ERROR {
            return Err(words(rd::rd_kafka_error_string(error)));
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return Err("no topic id: the broker is older than 2.8".to_owned());
        }
        let high = rd::rd_kafka_Uuid_most_significant_bits(id);
        let low = rd::rd_kafka_Uuid_least_significant_bits(id);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        Ok(Some(bytes))
    }
}

/// A string of librdkafka's.
///
/// # Safety
/// `text` is null or a NUL-terminated string that lives during the call.
#[expect(unsafe_code, reason = "rdkafka has no safe wrapper of DescribeTopics")]
unsafe fn words(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: checked above, and promised by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
