window.YTD.tweets.part1 = [
  {
    "tweet" : {
      "retweeted" : false,
      "entities" : { "urls" : [ ] },
      "favorite_count" : "0",
      "id_str" : "1600000000000000500",
      "retweet_count" : "0",
      "id" : "1600000000000000500",
      "created_at" : "Tue Dec 06 09:50:00 +0000 2022",
      "full_text" : "RT @cy_example: A text that X cuts in the retweet and gives whole in the included tweet, which is where it is taken fro…",
      "lang" : "en"
    }
  },
  {
    "tweet" : {
      "entities" : {
        "urls" : [
          {
            "url" : "https://t.co/r",
            "expanded_url" : "https://twitter.com/ben_example/status/1600000000000000001?s=20"
          }
        ]
      },
      "favorite_count" : "0",
      "id_str" : "1600000000000000600",
      "retweet_count" : "0",
      "created_at" : "Tue Dec 06 10:00:00 +0000 2022",
      "full_text" : "Half a pair \ud83d and \u0000 https://t.co/r",
      "lang" : "en"
    }
  }
]
