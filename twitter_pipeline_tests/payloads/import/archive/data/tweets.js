window.YTD.tweets.part0 = [
  {
    "tweet" : {
      "edit_info" : {
        "initial" : {
          "editTweetIds" : [
            "1600000000000000200"
          ],
          "editableUntil" : "2022-12-06T09:50:00.000Z",
          "editsRemaining" : "5",
          "isEditEligible" : true
        }
      },
      "retweeted" : false,
      "source" : "<a href=\"https://mobile.twitter.com\" rel=\"nofollow\">Twitter Web App</a>",
      "entities" : {
        "hashtags" : [ ],
        "symbols" : [ ],
        "user_mentions" : [ ],
        "urls" : [ ]
      },
      "display_text_range" : [
        "0",
        "11"
      ],
      "favorite_count" : "3",
      "id_str" : "1600000000000000200",
      "truncated" : false,
      "retweet_count" : "1",
      "id" : "1600000000000000200",
      "created_at" : "Tue Dec 06 09:20:00 +0000 2022",
      "favorited" : false,
      "full_text" : "A plain one",
      "lang" : "en"
    }
  },
  {
    "tweet" : {
      "edit_info" : {
        "edit" : {
          "initialTweetId" : "1600000000000000399",
          "editControlInitial" : {
            "editTweetIds" : [
              "1600000000000000399",
              "1600000000000000400"
            ],
            "editableUntil" : "2022-12-06T10:09:00.000Z",
            "editsRemaining" : "4",
            "isEditEligible" : false
          }
        }
      },
      "retweeted" : false,
      "entities" : {
        "user_mentions" : [
          {
            "name" : "Ben",
            "screen_name" : "ben_example",
            "indices" : [
              "0",
              "12"
            ],
            "id_str" : "1000000002",
            "id" : "1000000002"
          }
        ],
        "urls" : [
          {
            "url" : "https://t.co/q",
            "expanded_url" : "https://twitter.com/ben_example/status/1600000000000000001",
            "display_url" : "twitter.com/ben_example/st…",
            "indices" : [
              "25",
              "39"
            ]
          }
        ]
      },
      "favorite_count" : "3",
      "in_reply_to_status_id_str" : "1600000000000000002",
      "id_str" : "1600000000000000400",
      "in_reply_to_user_id" : "1000000002",
      "truncated" : false,
      "retweet_count" : "1",
      "id" : "1600000000000000400",
      "in_reply_to_status_id" : "1600000000000000002",
      "created_at" : "Tue Dec 06 09:40:00 +0000 2022",
      "full_text" : "@ben_example { see this } https://t.co/q",
      "lang" : "en",
      "in_reply_to_screen_name" : "ben_example",
      "in_reply_to_user_id_str" : "1000000002"
    }
  }
]
