-- Made from the protos by `make api`. Envoy's transcoder ignores names that it does not know; a
-- caller who misspells one should hear of it. Broken JSON is left to the transcoder.
-- Path -> every name that its body can have.
local known = {
  ["/api/v1/analyze"] = {
    ["audioData"] = true,
    ["audioFormat"] = true,
    ["audio_data"] = true,
    ["audio_format"] = true,
    ["cacheMode"] = true,
    ["cache_mode"] = true,
    ["channelCount"] = true,
    ["channelIndex"] = true,
    ["channel_count"] = true,
    ["channel_index"] = true,
    ["embeddingDataType"] = true,
    ["embedding_data_type"] = true,
    ["encoding"] = true,
    ["extractEmbedding"] = true,
    ["extract_embedding"] = true,
    ["frameStride"] = true,
    ["frame_stride"] = true,
    ["granularity"] = true,
    ["model"] = true,
    ["options"] = true,
    ["priority"] = true,
    ["requestId"] = true,
    ["request_id"] = true,
    ["sampleRateHz"] = true,
    ["sample_rate_hz"] = true,
  },
  ["/api/v1/analyze:batch"] = {
    ["audioData"] = true,
    ["audioFormat"] = true,
    ["audio_data"] = true,
    ["audio_format"] = true,
    ["cacheMode"] = true,
    ["cache_mode"] = true,
    ["channelCount"] = true,
    ["channelIndex"] = true,
    ["channel_count"] = true,
    ["channel_index"] = true,
    ["embeddingDataType"] = true,
    ["embedding_data_type"] = true,
    ["encoding"] = true,
    ["extractEmbedding"] = true,
    ["extract_embedding"] = true,
    ["frameStride"] = true,
    ["frame_stride"] = true,
    ["granularity"] = true,
    ["model"] = true,
    ["options"] = true,
    ["priority"] = true,
    ["requestId"] = true,
    ["request_id"] = true,
    ["requests"] = true,
    ["sampleRateHz"] = true,
    ["sample_rate_hz"] = true,
  },
  ["/api/v1/analyze:stream"] = {
    ["audio"] = true,
    ["audioFormat"] = true,
    ["audio_format"] = true,
    ["cacheMode"] = true,
    ["cache_mode"] = true,
    ["channelCount"] = true,
    ["channelIndex"] = true,
    ["channel_count"] = true,
    ["channel_index"] = true,
    ["clientMarks"] = true,
    ["client_marks"] = true,
    ["config"] = true,
    ["control"] = true,
    ["data"] = true,
    ["embeddingDataType"] = true,
    ["embedding_data_type"] = true,
    ["encoding"] = true,
    ["endSegment"] = true,
    ["endSilenceMs"] = true,
    ["end_segment"] = true,
    ["end_silence_ms"] = true,
    ["extractEmbedding"] = true,
    ["extract_embedding"] = true,
    ["finish"] = true,
    ["firstByte"] = true,
    ["firstSample"] = true,
    ["first_byte"] = true,
    ["first_sample"] = true,
    ["fixedWindow"] = true,
    ["fixed_window"] = true,
    ["frameStride"] = true,
    ["frame_stride"] = true,
    ["granularity"] = true,
    ["hopMs"] = true,
    ["hop_ms"] = true,
    ["interimIntervalMs"] = true,
    ["interim_interval_ms"] = true,
    ["maxSegmentMs"] = true,
    ["max_segment_ms"] = true,
    ["minSpeechMs"] = true,
    ["min_speech_ms"] = true,
    ["model"] = true,
    ["options"] = true,
    ["pacing"] = true,
    ["priority"] = true,
    ["requestId"] = true,
    ["request_id"] = true,
    ["resumeToken"] = true,
    ["resume_token"] = true,
    ["sampleRateHz"] = true,
    ["sample_rate_hz"] = true,
    ["threshold"] = true,
    ["voiceActivity"] = true,
    ["voice_activity"] = true,
    ["windowMs"] = true,
    ["window_ms"] = true,
  },
}

-- Where the string that opens before `from` ends: the next quote that no backslash escapes.
local function closing_quote(text, from)
  local at = from
  while true do
    at = text:find('"', at, true)
    if not at then return nil end
    local slashes = 0
    while text:byte(at - 1 - slashes) == 92 do slashes = slashes + 1 end
    if slashes % 2 == 0 then return at end
    at = at + 1
  end
end

-- The first name (a string before a colon) that is not in `names`.
local function unknown_name(names, text)
  local at = 1
  while true do
    local opening = text:find('"', at, true)
    local closing = opening and closing_quote(text, opening + 1)
    if not closing then return nil end
    if text:find("^%s*:", closing + 1) then
      local name = text:sub(opening + 1, closing - 1)
      if not names[name] then return name end
    end
    at = closing + 1
  end
end

function envoy_on_request(handle)
  local names = known[handle:headers():get(":path"):match("^[^?]*")]
  local body = names and handle:body()
  if not body then return end
  local name = unknown_name(names, body:getBytes(0, body:length()))
  if name then
    local shown = name:gsub("[^%w_.-]", "?"):sub(1, 64)
    handle:respond({[":status"] = "400"}, "There is no field named " .. shown .. ".")
  end
end
