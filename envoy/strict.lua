-- Made from the protos by `make api`. Envoy's transcoder ignores names that it does not know; a
-- caller who misspells one should hear of it. Broken JSON is left to the transcoder.
-- Message -> the names that it can have, each with the message that is its value, or "".
local messages = {
  [".speechemotion.v1.AnalyzeOptions"] = {
    ["cacheMode"] = "",
    ["cache_mode"] = "",
    ["contentDigest"] = "",
    ["content_digest"] = "",
    ["embeddingDataType"] = "",
    ["embedding_data_type"] = "",
    ["frameStride"] = "",
    ["frame_stride"] = "",
    ["priority"] = "",
  },
  [".speechemotion.v1.AnalyzeRequest"] = {
    ["audioData"] = "",
    ["audioFormat"] = ".speechemotion.v1.AudioFormat",
    ["audio_data"] = "",
    ["audio_format"] = ".speechemotion.v1.AudioFormat",
    ["extractEmbedding"] = "",
    ["extract_embedding"] = "",
    ["granularity"] = "",
    ["model"] = "",
    ["options"] = ".speechemotion.v1.AnalyzeOptions",
    ["requestId"] = "",
    ["request_id"] = "",
  },
  [".speechemotion.v1.AnalyzeStreamRequest"] = {
    ["audio"] = ".speechemotion.v1.AudioChunk",
    ["config"] = ".speechemotion.v1.StreamConfig",
    ["control"] = ".speechemotion.v1.StreamControl",
  },
  [".speechemotion.v1.AudioChunk"] = {
    ["data"] = "",
    ["firstByte"] = "",
    ["firstSample"] = "",
    ["first_byte"] = "",
    ["first_sample"] = "",
  },
  [".speechemotion.v1.AudioFormat"] = {
    ["channelCount"] = "",
    ["channelIndex"] = "",
    ["channel_count"] = "",
    ["channel_index"] = "",
    ["encoding"] = "",
    ["sampleRateHz"] = "",
    ["sample_rate_hz"] = "",
  },
  [".speechemotion.v1.BatchAnalyzeRequest"] = {
    ["requests"] = ".speechemotion.v1.AnalyzeRequest",
  },
  [".speechemotion.v1.ClientMarks"] = {
  },
  [".speechemotion.v1.EndSegment"] = {
  },
  [".speechemotion.v1.Finish"] = {
  },
  [".speechemotion.v1.FixedWindow"] = {
    ["hopMs"] = "",
    ["hop_ms"] = "",
    ["windowMs"] = "",
    ["window_ms"] = "",
  },
  [".speechemotion.v1.StreamConfig"] = {
    ["audioFormat"] = ".speechemotion.v1.AudioFormat",
    ["audio_format"] = ".speechemotion.v1.AudioFormat",
    ["clientMarks"] = ".speechemotion.v1.ClientMarks",
    ["client_marks"] = ".speechemotion.v1.ClientMarks",
    ["extractEmbedding"] = "",
    ["extract_embedding"] = "",
    ["fixedWindow"] = ".speechemotion.v1.FixedWindow",
    ["fixed_window"] = ".speechemotion.v1.FixedWindow",
    ["granularity"] = "",
    ["interimIntervalMs"] = "",
    ["interim_interval_ms"] = "",
    ["model"] = "",
    ["options"] = ".speechemotion.v1.AnalyzeOptions",
    ["pacing"] = "",
    ["requestId"] = "",
    ["request_id"] = "",
    ["resumeToken"] = "",
    ["resume_token"] = "",
    ["voiceActivity"] = ".speechemotion.v1.VoiceActivity",
    ["voice_activity"] = ".speechemotion.v1.VoiceActivity",
  },
  [".speechemotion.v1.StreamControl"] = {
    ["endSegment"] = ".speechemotion.v1.EndSegment",
    ["end_segment"] = ".speechemotion.v1.EndSegment",
    ["finish"] = ".speechemotion.v1.Finish",
  },
  [".speechemotion.v1.VoiceActivity"] = {
    ["endSilenceMs"] = "",
    ["end_silence_ms"] = "",
    ["maxSegmentMs"] = "",
    ["max_segment_ms"] = "",
    ["minSpeechMs"] = "",
    ["min_speech_ms"] = "",
    ["threshold"] = "",
  },
}
-- Path -> the message that is its body; of a stream, each element of it.
local bodies = {
  ["/api/v1/analyze"] = ".speechemotion.v1.AnalyzeRequest",
  ["/api/v1/analyze:batch"] = ".speechemotion.v1.BatchAnalyzeRequest",
  ["/api/v1/analyze:stream"] = ".speechemotion.v1.AnalyzeStreamRequest",
}
local DEEPEST = 100 -- the transcoder refuses more

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

-- The first name (a string before a colon) that its object cannot have.
local function unknown_name(body, text)
  local inside, value = nil, body -- names of the object around `at`; message of the last name
  local outer, depth, at = {}, 0, 1
  while true do
    at = text:find('["{}]', at)
    if not at then return nil end
    local what = text:byte(at)
    if what == 123 then -- {
      if depth == DEEPEST then return nil end
      depth = depth + 1
      outer[depth] = {inside, value}
      inside, value = messages[value], nil
    elseif what == 125 then -- }
      if depth == 0 then return nil end
      inside, value = outer[depth][1], outer[depth][2] -- an array may have more of the same
      depth = depth - 1
    else
      local closing = closing_quote(text, at + 1)
      if not closing then return nil end
      if text:find("^%s*:", closing + 1) then
        local name = text:sub(at + 1, closing - 1)
        if inside and not inside[name] then return name end
        value = inside and inside[name]
      end
      at = closing
    end
    at = at + 1
  end
end

function envoy_on_request(handle)
  local root = bodies[handle:headers():get(":path"):match("^[^?]*")]
  local body = root and handle:body()
  if not body then return end
  local name = unknown_name(root, body:getBytes(0, body:length()))
  if name then
    local shown = name:gsub("[^%w_.-]", "?"):sub(1, 64)
    handle:respond({[":status"] = "400"}, "There is no field named " .. shown .. " here.")
  end
end
