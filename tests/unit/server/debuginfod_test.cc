#include "userspace/server/debuginfod.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <stdlib.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "userspace/base/clock.h"
#include "userspace/base/file.h"
#include "userspace/base/strings.h"
#include "userspace/elf/elf_file.h"

namespace pyrometer::server {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMaxExecutable = 1u << 30;

// A debuginfod server on loopback that has this program, and lies about one build ID.
class FakeServer {
 public:
  FakeServer() {
    const auto file = elf::ElfFile::Open("/proc/self/exe");
    build_id_ = file.ok() ? file->ReadBuildId()->hex : "";
    bytes_ = ReadFile("/proc/self/exe", kMaxExecutable).value();
    server_.Get(R"(/cache/buildid/([0-9a-f]+)/debuginfo)",
                [&](const httplib::Request& request, httplib::Response& reply) {
                  ++asked_;
                  const std::string id = request.matches[1];
                  if (id == "dead00beef") {
                    reply.status = 500;
                  } else if (id == build_id_ || id == "1234567890ab") {
                    reply.set_content(bytes_, "application/octet-stream");
                  } else {
                    reply.status = 404;
                  }
                });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
  }
  ~FakeServer() {
    // One that does not listen yet would not hear of the end.
    while (!server_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    server_.stop();
    thread_.join();
  }
  std::string url() const { return StrFormat("http://127.0.0.1:%d/cache/", port_); }
  const std::string& build_id() const { return build_id_; }
  int asked() const { return asked_; }

 private:
  httplib::Server server_;
  std::string build_id_, bytes_;
  int port_ = 0;
  std::atomic<int> asked_{0};
  std::thread thread_;
};

class DebuginfodTest : public ::testing::Test {
 protected:
  DebuginfodTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pyrometer-debuginfod-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    symbols_ = *LateSymbols::Open({.folder = folder_});
  }
  ~DebuginfodTest() override {
    std::error_code error;
    std::filesystem::remove_all(folder_, error);
  }
  // Waits until so many questions have their answer.
  static Debuginfod::Counters After(const Debuginfod& fetch, uint64_t answers) {
    const uint64_t until = MonotonicNowNs() + 60 * kNsPerSecond;
    Debuginfod::Counters c = fetch.counters();
    while (c.fetched + c.absent + c.failed < answers && MonotonicNowNs() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      c = fetch.counters();
    }
    return c;
  }
  std::string folder_;
  std::unique_ptr<LateSymbols> symbols_;
};

TEST_F(DebuginfodTest, FetchesWhatTheServerHasAndAsksOnceForWhatItHasNot) {
  FakeServer server;
  Debuginfod fetch({.urls = {server.url()}, .into = symbols_.get(), .log = {}});
  fetch.Want(server.build_id());
  fetch.Want("00000000000000000000");
  EXPECT_EQ(After(fetch, 2).fetched, 1u);
  EXPECT_EQ(fetch.counters().absent, 1u);
  ASSERT_EQ(symbols_->List().size(), 1u);
  EXPECT_EQ(symbols_->List()[0].build_id.hex, server.build_id());
  fetch.Want("00000000000000000000");
  fetch.Want("11111111");
  EXPECT_EQ(After(fetch, 3).absent, 2u);
  EXPECT_EQ(server.asked(), 3);
}

TEST_F(DebuginfodTest, WhatALyingOrFailingServerSendsIsNotKept) {
  FakeServer server;
  std::string log;
  {
    Debuginfod fetch(
        {.urls = {server.url()}, .into = symbols_.get(), .log = [&](const std::string& line) { log += line; }});
    fetch.Want("1234567890ab");  // gets a file of another build ID
    fetch.Want("dead00beef");
    EXPECT_EQ(After(fetch, 2).failed, 2u);
  }
  EXPECT_TRUE(symbols_->List().empty());
  EXPECT_THAT(log, HasSubstr("not 1234567890ab"));
  EXPECT_THAT(log, HasSubstr("500"));
}

TEST_F(DebuginfodTest, ServersAreAskedInOrder) {
  FakeServer server;
  std::string log;
  Debuginfod fetch({.urls = {"http://127.0.0.1:1/", server.url()},
                    .into = symbols_.get(),
                    .log = [&](const std::string& line) { log += line; }});
  fetch.Want(server.build_id());
  EXPECT_EQ(After(fetch, 1).fetched, 1u);
}

TEST_F(DebuginfodTest, EndsWhileItWaits) {
  FakeServer server;
  Debuginfod fetch({.urls = {server.url()}, .into = symbols_.get(), .log = {}});
  for (int i = 0; i < 1000; ++i) fetch.Want(StrFormat("abcdef%06d", i));
}

TEST(DebuginfodUrl, IsChecked) {
  EXPECT_TRUE(CheckDebuginfodUrl("https://debuginfod.debian.net").ok());
  EXPECT_TRUE(CheckDebuginfodUrl("http://127.0.0.1:8002/prefix/").ok());
  for (const char* bad :
       {"", "debuginfod.debian.net", "https://", "https:///x", "ftp://a", "http://a b", "http://a/?q"}) {
    const Status status = CheckDebuginfodUrl(bad);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(Message(status)), HasSubstr("looks like")) << bad;
  }
}

}  // namespace
}  // namespace pyrometer::server
